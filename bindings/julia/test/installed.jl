# A temporary project that adds the package and finds the installed library.
@testset "a project of its own" begin
    mktempdir() do folder
        package, project, depot = joinpath(folder, "OnlineLabelSmoothing"), joinpath(folder, "project"), joinpath(folder, "depot")
        mkdir(package)
        for name in ("Project.toml", "src", "ext")
            cp(joinpath(PACKAGE, name), joinpath(package, name))
        end
        # Pkg requires a registry; an empty one suffices, because all dependencies are in the standard library.
        registry = joinpath(depot, "registries", "Empty")
        mkpath(registry)
        write(joinpath(registry, "Registry.toml"), "name = \"Empty\"\nuuid = \"cc9d4d2b-3e4f-4c6c-8f27-0a9a2c6e1f55\"\nrepo = \"\"\n\n[packages]\n")
        mkdir(project)
        environment = Dict("JULIA_DEPOT_PATH" => depot, "OLS_LIBRARY" => "", "LD_LIBRARY_PATH" => dirname(O.library().path), "JULIA_PKG_OFFLINE" => "true")
        added = julia("using Pkg; Pkg.develop(PackageSpec(path = $(repr(package))))"; environment = environment, project = project)
        added.succeeded || println(added.output)
        @test added.succeeded && occursin("OnlineLabelSmoothing", read(joinpath(project, "Project.toml"), String))
        used = julia(
            """
            using OnlineLabelSmoothing
            loss = OnlineLabelSmoothingLoss(3)
            value, grad = loss_and_gradient(loss, Float32[2 0.3; 0.1 0.2; -1 0.1], [1, 3])
            next_epoch!(loss)
            print(pathof(OnlineLabelSmoothing), ' ', round(value; digits = 4), ' ', report(loss).rows_measured)
            """; environment = environment, project = project)
        used.succeeded || println(used.output)
        # The values of the example in ols.h, whose second sample is classified incorrectly.
        @test used.succeeded && used.output == "$(joinpath(package, "src", "OnlineLabelSmoothing.jl")) $(round(by_hand([2 0.3; 0.1 0.2; -1 0.1], [1, 3], [0.9 0.05 0.05; 0.05 0.9 0.05; 0.05 0.05 0.9])[1]; digits = 4)) 1"

        # The preference of the project names the library; the environment variable has precedence.
        found_from(chosen, preferred) = begin
            write(joinpath(project, "LocalPreferences.toml"), "[OnlineLabelSmoothing]\nlibrary = $(repr(preferred))\n")
            julia(
                """
                include($(repr(joinpath(STUBS, "base_preferences.jl"))))
                using OnlineLabelSmoothing
                try; print(OnlineLabelSmoothing.library().path); catch exception; print(exception.msg); end
                """; environment = merge(environment, Dict("OLS_LIBRARY" => chosen, "LD_LIBRARY_PATH" => "")), project = project).output
        end
        copied = joinpath(folder, "libols-of-the-preference.so")
        cp(O.library().path, copied; follow_symlinks = true)
        @test found_from("", copied) == copied
        @test found_from(O.library().path, copied) == O.library().path
        nowhere = found_from("", "/nowhere/libols.so")
        @test occursin("set by the preference \"library\"", nowhere) && occursin("/nowhere/libols.so", nowhere)
    end
end
