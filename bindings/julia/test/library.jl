# R1 and R2: finding and loading libols.

@testset "r01 versions" begin
    path, version = O.library()
    @test isabspath(path) && version == VersionNumber(O.OLS_VERSION)
    @test Base.VersionNumber(match(r"version = \"(.*)\"", read(joinpath(PACKAGE, "Project.toml"), String))[1]) == version
    mktempdir() do folder
        problem(library) = try
            O.open_library(library)
            "none"
        catch exception
            exception isa ErrorException || rethrow()
            exception.msg
        end
        other = shared_library(folder, "other", "int something(void) { return 1; }")
        @test occursin(other, problem(other)) && occursin("not libols", problem(other))
        stub(abi, version) = "unsigned ols_abi_version(void) { return $abi; } const char *ols_version(void) { return \"$version\"; }"
        newer = shared_library(folder, "newer", stub(7, "7.0.0"))
        @test all(word -> occursin(word, problem(newer)), [newer, "version 7,", "for $(O.OLS_ABI_VERSION)"])
        # Before 1.0 the ABI version is always 0.
        minor = shared_library(folder, "minor", stub(0, "0.$(O.OLS_VERSION_MINOR + 1).0"))
        @test all(word -> occursin(word, problem(minor)), [minor, "libols 0.$(O.OLS_VERSION_MINOR + 1).0", "for 0.$(O.OLS_VERSION_MINOR)"])
        lacking = shared_library(folder, "lacking", stub(0, O.OLS_VERSION))
        @test occursin("does not define", problem(lacking)) && occursin("ols_forward", problem(lacking))
        # The first use throws an error with the path, and the process goes on.
        found = julia("using OnlineLabelSmoothing; try; OnlineLabelSmoothingLoss(3); catch e; print(typeof(e), ' ', e.msg); end"; environment = Dict("OLS_LIBRARY" => newer))
        @test found.succeeded && occursin("ErrorException", found.output) && occursin(newer, found.output)
        gone = julia("using OnlineLabelSmoothing; OnlineLabelSmoothingLoss(3)"; environment = Dict("OLS_LIBRARY" => joinpath(folder, "gone.so")))
        @test !gone.succeeded && occursin("OLS_LIBRARY", gone.output) && occursin("gone.so", gone.output)
    end
end

@testset "r02 loading does nothing; where the library is looked for" begin
    # Without a library, `using` works, and nothing is opened before the first use.
    quiet = julia("""
        using Libdl, OnlineLabelSmoothing
        print(any(path -> occursin("libols.so", path), dllist()), length(OnlineLabelSmoothing.LIBRARY_PATH[]))
        """; environment = Dict("OLS_LIBRARY" => ""))
    @test quiet.succeeded && quiet.output == "false0"

    @test O.candidates(Dict("OLS_LIBRARY" => "/a/libols.so"), Dict("library" => "/b/libols.so"))[1] == ["/a/libols.so"]
    @test O.candidates(Dict("OLS_LIBRARY" => ""), Dict("library" => "/b/libols.so"))[1] == ["/b/libols.so"]
    @test O.candidates(Dict{String,String}(), Dict{String,Any}())[1] == O.system_names()
    @test first(O.system_names()) == (Sys.isapple() ? "libols.0.1.dylib" : Sys.iswindows() ? "ols.dll" : "libols.so.0.1")

    # The library directory of the installed tree on the dynamic linker's search path.
    folder = dirname(O.library().path)
    system = julia("using OnlineLabelSmoothing; print(OnlineLabelSmoothing.library().path)"; environment = Dict("OLS_LIBRARY" => "", "LD_LIBRARY_PATH" => folder))
    @test system.succeeded && dirname(system.output) == folder
    @test occursin(string(O.PACKAGE_ID), read(joinpath(PACKAGE, "Project.toml"), String))
end
