# A strict reader of JSON (RFC 8259), because Julia's standard library has none. Numbers are integers, as in the conformance files.
module Json

mutable struct Reader
    text::String
    at::Int # the next code unit
end

"""
    parse_file(path)

The value in a file: objects as `Dict{String,Any}`, arrays as `Vector{Any}`, integers as `Int`, `null` as `nothing`.
"""
function parse_file(path)
    reader = Reader(read(path, String), 1)
    isvalid(reader.text) || fail(reader, "no UTF-8")
    value = read_value(reader)
    peek(reader) == 0x00 || fail(reader, "something behind the end")
    return value
end

fail(reader::Reader, what) = error("JSON: $what at byte $(reader.at)")

# The next code unit that is not white space; 0 at the end.
function peek(reader::Reader)
    while reader.at <= ncodeunits(reader.text)
        unit = codeunit(reader.text, reader.at)
        unit in (0x20, 0x09, 0x0a, 0x0d) || return unit
        reader.at += 1
    end
    return 0x00
end

function expect(reader::Reader, character::Char)
    peek(reader) == UInt8(character) || fail(reader, "no '$character'")
    reader.at += 1
    return nothing
end

function read_value(reader::Reader)
    unit = peek(reader)
    unit == UInt8('{') && return read_object(reader)
    unit == UInt8('[') && return read_array(reader)
    unit == UInt8('"') && return read_string(reader)
    for (word, value) in (("true", true), ("false", false), ("null", nothing))
        if startswith(SubString(reader.text, reader.at), word)
            reader.at += length(word)
            return value
        end
    end
    return read_integer(reader)
end

function read_object(reader::Reader)
    members = Dict{String,Any}()
    expect(reader, '{')
    if peek(reader) == UInt8('}')
        reader.at += 1
        return members
    end
    while true
        peek(reader)
        name = read_string(reader)
        haskey(members, name) && fail(reader, "a second \"$name\"")
        expect(reader, ':')
        members[name] = read_value(reader)
        peek(reader) == UInt8(',') || break
        reader.at += 1
    end
    expect(reader, '}')
    return members
end

function read_array(reader::Reader)
    values = Any[]
    expect(reader, '[')
    if peek(reader) == UInt8(']')
        reader.at += 1
        return values
    end
    while true
        push!(values, read_value(reader))
        peek(reader) == UInt8(',') || break
        reader.at += 1
    end
    expect(reader, ']')
    return values
end

const ESCAPES = Dict('"' => '"', '\\' => '\\', '/' => '/', 'b' => '\b', 'f' => '\f', 'n' => '\n', 'r' => '\r', 't' => '\t')

function read_string(reader::Reader)
    expect(reader, '"')
    start = reader.at
    written = IOBuffer()
    while reader.at <= ncodeunits(reader.text)
        character = reader.text[reader.at]
        reader.at = nextind(reader.text, reader.at)
        character == '"' && return String(take!(written))
        character < ' ' && fail(reader, "a control character in a string")
        if character == '\\'
            escape = reader.text[reader.at]
            haskey(ESCAPES, escape) || fail(reader, "an escape \\$escape, which the files do not use,")
            character = ESCAPES[escape]
            reader.at += 1
        end
        print(written, character)
    end
    reader.at = start
    fail(reader, "a string without an end")
end

function read_integer(reader::Reader)
    found = match(r"-?(?:0|[1-9][0-9]*)(?![0-9.eE])", reader.text, reader.at)
    found !== nothing && found.offset == reader.at || fail(reader, "no value")
    reader.at += ncodeunits(found.match)
    return parse(Int, found.match)
end

end
