# The type of BFloat16s.jl, before Julia had one.
module BFloat16s

primitive type BFloat16 <: AbstractFloat 16 end

end
