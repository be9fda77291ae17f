# `Base.get_preferences` for Julia before 1.6: the tables for a package in the files of the active project, where
# LocalPreferences.toml has precedence over Project.toml, as Julia 1.6 reads them.
import Pkg

isdefined(Base, :get_preferences) || @eval Base function get_preferences(uuid::UUID)
    file = active_project()
    project = $(Pkg.TOML.parsefile)(file)
    names = [name for (name, id) in get(project, "deps", Dict()) if id == string(uuid)]
    isempty(names) && return Dict{String,Any}()
    ours = get(get(project, "preferences", Dict()), names[1], Dict{String,Any}())
    local_file = joinpath(dirname(file), "LocalPreferences.toml")
    return merge(ours, isfile(local_file) ? get($(Pkg.TOML.parsefile)(local_file), names[1], Dict{String,Any}()) : Dict{String,Any}())
end
