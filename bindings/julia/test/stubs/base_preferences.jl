# `Base.get_preferences` for a Julia before 1.6, which has none: the tables that the active project's files have for a package of its [deps], those of
# LocalPreferences.toml over those of Project.toml, as 1.6 reads them. Julia's own stays where it is there.
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
