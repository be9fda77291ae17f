# What is documented exists, and the examples run.

# The Julia code blocks of a Markdown file.
snippets(path) = [m[1] for m in eachmatch(r"```julia\n(.*?)```"s, read(path, String))]

# Runs code blocks one after the other, as a reader would type them. Blocks that use Flux are only parsed.
function run_snippets(found, count)
    @test length(found) == count
    place = Module(:Snippets)
    Core.eval(place, :(eval(x) = Core.eval($place, x); include(x) = Base.include($place, x)))
    mktempdir() do folder
        cd(folder) do
            for snippet in found
                if occursin("using Flux", snippet)
                    parsed = Meta.parse("begin\n$snippet\nend")
                    @test !any(part -> part isa Expr && part.head in (:error, :incomplete), parsed.args)
                    continue
                end
                open("printed", "w") do printed
                    redirect_stdout(() -> (@test (include_string(place, snippet); true)), printed)
                end
            end
        end
    end
end

@testset "snippets of the README files" begin
    run_snippets(snippets(joinpath(PACKAGE, "README.md")), 6)
    run_snippets(snippets(joinpath(REPOSITORY, "README.md")), 1)
end

@testset "docstrings" begin
    documented(name) = haskey(Base.Docs.meta(O), Base.Docs.Binding(O, name))
    public = [
        names(O); :library; :status; :BFloat16; :options; :trainmode!; :testmode!; :istraining; :set_alpha!; :epoch; :set_epoch!; :forward!; :backward!;
        :accumulate_probabilities!; :set_soft_labels!; :save; :load; :load!; :saved; :loss_and_pullback
    ]
    for name in public
        @test (name, documented(name)) == (name, true)
    end
    # What documentation names exists.
    for file in readdir(joinpath(PACKAGE, "src"); join = true)
        isfile(file) || continue
        for m in eachmatch(r"\]\(@ref\)|\[`(?:OnlineLabelSmoothing\.)?(\w+!?)`\]", read(file, String))
            m[1] === nothing || @test isdefined(O, Symbol(m[1]))
        end
    end
    for m in eachmatch(r"OnlineLabelSmoothing\.(\w+!?)", read(joinpath(PACKAGE, "README.md"), String))
        m[1] == "jl" || @test isdefined(O, Symbol(m[1]))
    end
    # Every keyword of the constructor is explained.
    text = string(Base.Docs.doc(OnlineLabelSmoothingLoss))
    for field in (fieldnames(O.ols_options_t)[2:end]..., :preset, :target_offset)
        field in (:num_classes, :flags, :device_type) || @test occursin("`$field`", text)
    end
    @test occursin("adopt_state", text) && occursin("`device`", text)
    # The defaults in brackets are the library's.
    usual = OnlineLabelSmoothingLoss(O.options, 3)
    stated = collect(eachmatch(r"`(\w+)` \[`?([^\]`]+?)(?:`|:\s[^\]]*)?\]", text))
    @test length(stated) == 14
    for m in stated
        @test (m[1], usual[Symbol(m[1])]) == (m[1], Core.eval(Main, Meta.parse(m[2])))
    end
end
