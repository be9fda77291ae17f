# Images to train on: the digits that come with the repository, or the IDX files of the MNIST family.

using Random

struct Images
    pixels::Matrix{Float32} # (pixels, images), in [0, 1]
    labels::Vector{Int} # one-based
end

Base.length(images::Images) = length(images.labels)
part(images::Images, which) = Images(images.pixels[:, which], images.labels[which])

# The contents of a file, decompressed by gzip if its name ends with .gz.
unpacked(path) = endswith(path, ".gz") ? read(`gzip -dc $path`) : read(path)

# 1,797 images of 8x8 pixels from 0 to 16; each line has 64 numbers and the class.
function read_digits()
    lines = split(String(unpacked(joinpath(@__DIR__, "..", "data", "digits.csv.gz"))))
    numbers = [parse(Int, number) for line in lines for number in split(line, ',')]
    table = reshape(numbers, 65, :)
    return Images(table[1:64, :] ./ 16.0f0, table[65, :] .+ 1)
end

# An IDX file consists of a big-endian magic number (0, 0, 8 for bytes, number of dimensions), the sizes of the
# dimensions in 4 bytes each, and the bytes.
function read_idx(path, dimensions)
    bytes = unpacked(path)
    magic = UInt8[0, 0, 8, dimensions]
    length(bytes) >= 4 * (dimensions + 1) && bytes[1:4] == magic || error("$path: not an IDX file of bytes in $dimensions dimensions")
    sizes = [Int(ntoh(reinterpret(UInt32, bytes[(4d + 1):(4d + 4)])[1])) for d in 1:dimensions]
    values = bytes[(4 * (dimensions + 1) + 1):end]
    length(values) == prod(sizes) || error("$path: $(length(values)) bytes of data instead of $(prod(sizes))")
    return values, sizes
end

function find_idx(folder, words, form)
    names = ["$words$separator$form-ubyte$ending" for separator in ("-", ".") for ending in ("", ".gz")]
    found = filter(isfile, joinpath.(folder, names))
    isempty(found) && error("$folder contains neither $(names[1]) nor $(names[2])")
    return first(found)
end

function read_idx_images(folder, words)
    pixels, (count, height, width) = read_idx(find_idx(folder, "$words-images", "idx3"), 3)
    labels, (labelled,) = read_idx(find_idx(folder, "$words-labels", "idx1"), 1)
    count == labelled || error("$folder: $labelled labels for $count $words images")
    return Images(reshape(pixels, height * width, count) ./ 255.0f0, Int.(labels) .+ 1)
end

# The name, training images and test images; the last are `nothing` if the data set is not divided.
function read_data(folder)
    folder === nothing && return "UCI handwritten digits", read_digits(), nothing
    return basename(rstrip(abspath(folder), '/')), read_idx_images(folder, "train"), read_idx_images(folder, "t10k")
end

# Training, validation and test images in the ratio 6:1:2, drawn by the seed, with at most `limit` training images.
function split_data(images::Images, test, limit, seed)
    order = shuffle(MersenneTwister(seed), 1:length(images))
    count = min(limit, length(images) * 6 ÷ (test === nothing ? 9 : 7))
    validation = max(count ÷ 6, 1)
    others = test === nothing ? part(images, order[(count + validation + 1):end]) : part(test, shuffle(MersenneTwister(seed), 1:length(test)))
    return part(images, order[1:count]), part(images, order[(count + 1):(count + validation)]), part(others, 1:min(length(others), cld(count, 3)))
end

# Replaces the fraction `noise` of the labels by another class, chosen uniformly.
function with_wrong_labels(labels, classes, noise, generator)
    wrong = shuffle(generator, 1:length(labels))[1:round(Int, noise * length(labels))]
    noisy = copy(labels)
    for i in wrong
        noisy[i] = mod1(labels[i] + rand(generator, 1:(classes - 1)), classes)
    end
    return noisy
end
