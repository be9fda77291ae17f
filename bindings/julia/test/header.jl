# R3 and R4: constants and structs equal those of the header.

@testset "r03 constants" begin
    text = read(HEADER, String)
    without_comments = replace(text, r"/\*.*?\*/"s => "")
    defined = [m[1] for m in eachmatch(r"^#define (OLS_\w+) .+$"m, without_comments)]
    numbered = [m[1] for m in eachmatch(r"^\s*(OLS_\w+) = -?\d+,"m, without_comments)]
    strings = ["OLS_VERSION"]
    @test length(defined) > 20 && length(numbered) > 35 && issubset(strings, defined)
    lines = ["printf(\"$name %lld\\n\", (long long)$name);" for name in vcat(setdiff(defined, strings), numbered)]
    push!(lines, "printf(\"OLS_VERSION %s\\n\", OLS_VERSION);")
    printed = run_c("#include <ols.h>\n#include <stdio.h>\nint main(void) {\n" * join(lines, "\n") * "\nreturn 0;\n}\n")
    header = Dict(split(line) for line in split(chomp(printed), '\n'))
    here = filter(name -> occursin(r"^OLS_[A-Z0-9_]+$", string(name)), names(O; all = true))
    @test sort(string.(here)) == sort(collect(keys(header)))
    for name in here
        value = getfield(O, name)
        @test (name, header[string(name)]) == (name, value isa String ? value : string(Int(value)))
    end
    # Every enumeration is complete.
    @test Set(keys(O.INITIALS)) == Set([:smoothing, :uniform, :zero, :one_hot, :matrix])
    @test length(O.STATUSES) == count(startswith("OLS_STATUS_"), numbered)
    @test allunique(values(O.STATUSES))
end

@testset "r03 functions" begin
    text = replace(read(HEADER, String), r"/\*.*?\*/"s => "")
    declared = unique(m[1] for m in eachmatch(r"\b(ols_\w+)\s*\(", text) if !startswith(m[1], "ols_tensor_"))
    @test Set(Symbol.(declared)) == Set(O.FUNCTION_NAMES)
end

@testset "r04 layouts" begin
    structs = [O.ols_tensor_t, O.ols_options_t, O.ols_batch_t, O.ols_statistics_t, O.ols_report_t]
    text = replace(read(HEADER, String), r"/\*.*?\*/"s => "")
    @test Set(string.(nameof.(structs))) == Set(m[1] for m in eachmatch(r"^typedef struct (ols_\w+) \{"m, text))
    program = IOBuffer()
    println(program, "#include <ols.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {")
    for type in structs
        name = nameof(type)
        println(program, "printf(\"$name %zu\\n\", sizeof($name));")
        for field in fieldnames(type)
            println(program, "printf(\"$name.$field %zu %zu\\n\", offsetof($name, $field), sizeof((($name *)0)->$field));")
        end
    end
    println(program, "return 0;\n}")
    lines = split.(split(chomp(run_c(String(take!(program)))), '\n'))
    layout = Dict(words[1] => parse.(Int, words[2:end]) for words in lines)
    for type in structs
        name = nameof(type)
        @test layout["$name"] == [sizeof(type)]
        for (number, field) in enumerate(fieldnames(type))
            @test layout["$name.$field"] == [fieldoffset(type, number), sizeof(fieldtype(type, number))]
        end
        # No field of the header is missing: the fields fill the whole struct.
        @test sum(sizeof(fieldtype(type, i)) for i in 1:fieldcount(type)) == sizeof(type)
    end
end

@testset "r04 what is not given is what the library begins with" begin
    batch = Ref{O.ols_batch_t}()
    O.check(ccall(O.FUNCTIONS[].ols_batch_init, Int32, (Ref{O.ols_batch_t}, Csize_t), batch, sizeof(O.ols_batch_t)))
    empty = O.ols_batch_t(sizeof(O.ols_batch_t), (O.NOT_GIVEN for _ in 1:6)..., 0, C_NULL, 0, 0)
    @test batch[] === empty
    @test all(iszero, reinterpret(UInt8, [O.NOT_GIVEN]))
    @test O.default_options().struct_size == sizeof(O.ols_options_t)
end
