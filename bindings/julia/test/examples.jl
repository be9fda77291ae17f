# The programs of examples/julia and the benchmark run and print what is expected.

const EXAMPLES = joinpath(REPOSITORY, "examples", "julia")

# Less optimisation is faster here, because most of the time is compilation. Programs that end at once are interpreted.
const INTERPRETED = `--compile=min -O0`
function run_program(path, arguments...; options = `-O1`)
    output = IOBuffer()
    process = run(pipeline(ignorestatus(`$(Base.julia_cmd()) $options --startup-file=no --project=$PACKAGE $path $arguments`); stdout = output, stderr = output))
    return (succeeded = success(process), output = String(take!(output)))
end

# The cells of the printed table.
table(output) = [strip.(split(strip(line, [' ', '|']), " | ")) for line in split(output, '\n') if startswith(line, "| ")]

@testset "digits" begin
    found = run_program(joinpath(EXAMPLES, "digits.jl"), "--epochs", "1")
    found.succeeded || println(found.output)
    @test found.succeeded && occursin("1198 training, 199 validation and 400 test images", found.output)
    rows = table(found.output)
    @test length(rows) == 7 && all(row -> length(row) == 8, rows)
    @test rows[1] == ["Training labels", "Loss", "Test accuracy %", "Test NLL (nats)", "Test ECE %", "Test accuracy % stopped early", "Training accuracy %", "Wrong labels learned %"]
    @test [row[2] for row in rows[2:7]] == repeat(["cross entropy", "label smoothing", "online label smoothing"], 2)
    # With ten classes, chance is 10 %.
    @test all(parse(Float64, row[3]) > 50 for row in rows[2:4])
    # A seed gives the same numbers.
    @test run_program(joinpath(EXAMPLES, "digits.jl"), "--epochs", "1").output == found.output
    wrong = run_program(joinpath(EXAMPLES, "digits.jl"), "--nonsense"; options = INTERPRETED)
    @test !wrong.succeeded && occursin("usage", wrong.output)
end

@testset "IDX files" begin
    mktempdir() do folder
        big_endian(numbers) = vcat(([UInt8(n >> shift & 0xff) for shift in (24, 16, 8, 0)] for n in numbers)...)
        idx(sizes, bytes) = vcat(UInt8[0, 0, 8, length(sizes)], big_endian(sizes), bytes)
        generator = MersenneTwister(1)
        # Three classes, each with one bright row of 3x4 pixels.
        function write_set(words, count; gzip = false)
            labels = rand(generator, 0x00:0x02, count)
            pixels = [UInt8(row == labels[n] ? 200 : 10) for column in 0:3, row in 0:2, n in 1:count]
            for (name, bytes) in (("$words-images-idx3-ubyte", idx([count, 3, 4], vec(pixels))), ("$words-labels-idx1-ubyte", idx([count], labels)))
                write(joinpath(folder, name), bytes)
                gzip && run(`gzip $(joinpath(folder, name))`)
            end
        end
        write_set("train", 140; gzip = true)
        write_set("t10k", 60)
        found = run_program(joinpath(EXAMPLES, "digits.jl"), "--data", folder, "--epochs", "5")
        found.succeeded || println(found.output)
        @test found.succeeded && occursin("120 training, 20 validation and 40 test images", found.output)
        @test table(found.output)[2][3] == "100.0"
        write(joinpath(folder, "t10k-labels-idx1-ubyte"), idx([60], zeros(UInt8, 59)))
        damaged = run_program(joinpath(EXAMPLES, "digits.jl"), "--data", folder; options = INTERPRETED)
        @test !damaged.succeeded && occursin("t10k-labels-idx1-ubyte: 59 bytes of data instead of 60", damaged.output)
        missing_file = run_program(joinpath(EXAMPLES, "digits.jl"), "--data", joinpath(folder, "nowhere"); options = INTERPRETED)
        @test !missing_file.succeeded && occursin("contains neither train-images-idx3-ubyte", missing_file.output)
    end
end

@testset "r26 data parallel" begin
    found = run_program(joinpath(EXAMPLES, "data_parallel.jl"), "2", "2")
    found.succeeded || println(found.output)
    @test found.succeeded && occursin("those of one process, bit for bit", found.output)
    counts = [parse(Int, m[1]) for m in eachmatch(r": (\d+) of 1797", found.output)]
    @test length(counts) == 4 && counts[1:2] == counts[3:4] && all(>(300), counts)
end

@testset "benchmark" begin
    found = run_program(joinpath(PACKAGE, "benchmark", "overhead.jl"), "50"; options = `-O2`)
    found.succeeded || println(found.output)
    @test found.succeeded && match(r"^Julia\t[\d.]+\t[\d.]+\t-?[\d.]+\t0$", chomp(found.output)) !== nothing
end
