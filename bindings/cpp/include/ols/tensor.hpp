// Views of memory: those passed to the library (`const_tensor`, `tensor`) and those of its own memory (`span`,
// `matrix`). None of them owns memory.
#ifndef OLS_TENSOR_HPP
#define OLS_TENSOR_HPP

#include <ols/error.hpp>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <type_traits>

#if defined(__STDCPP_FLOAT16_T__) || defined(__STDCPP_BFLOAT16_T__)
#include <stdfloat>
#endif

namespace ols {

/// The bits of an IEEE 754 binary16, for compilers without such a type.
enum class float16 : std::uint16_t {};
/// The bits of a bfloat16, the upper half of an IEEE 754 binary32.
enum class bfloat16 : std::uint16_t {};

/// The `OLS_DTYPE_...` of element type T. Specialise it, with a member `value`, for 16-bit types of other libraries.
template <class T, class = void>
struct dtype {
    static_assert(!sizeof(T), "libols has no dtype for this type: float, double, ols::float16, ols::bfloat16, std::int64_t, std::int32_t, std::uint8_t, "
                              "or what ols::dtype is specialised for");
};
template <> struct dtype<float> { static constexpr std::int32_t value = OLS_DTYPE_F32; };
template <> struct dtype<double> { static constexpr std::int32_t value = OLS_DTYPE_F64; };
template <> struct dtype<float16> { static constexpr std::int32_t value = OLS_DTYPE_F16; };
template <> struct dtype<bfloat16> { static constexpr std::int32_t value = OLS_DTYPE_BF16; };
template <> struct dtype<std::uint8_t> { static constexpr std::int32_t value = OLS_DTYPE_U8; };
#if defined(__STDCPP_FLOAT16_T__)
template <> struct dtype<std::float16_t> { static constexpr std::int32_t value = OLS_DTYPE_F16; };
#endif
#if defined(__STDCPP_BFLOAT16_T__)
template <> struct dtype<std::bfloat16_t> { static constexpr std::int32_t value = OLS_DTYPE_BF16; };
#endif
/// `int`, `long` and `long long`, according to their sizes.
template <class T>
struct dtype<T, std::enable_if_t<std::is_integral_v<T> && std::is_signed_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)>> {
    static constexpr std::int32_t value = sizeof(T) == 4 ? OLS_DTYPE_I32 : OLS_DTYPE_I64;
};

/// A non-owning view of contiguous values.
template <class T>
class span {
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// Converts a view of mutable elements to one of const elements.
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T> && !std::is_same_v<U, T>>>
    constexpr span(const span<U> &other) noexcept : data_(other.data()), size_(other.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A non-owning view of rows of contiguous values, which begin `stride` elements apart.
template <class T>
class matrix {
public:
    constexpr matrix() noexcept = default;
    constexpr matrix(T *data, std::size_t rows, std::size_t columns, std::size_t stride) noexcept
        : data_(data), rows_(rows), columns_(columns), stride_(stride) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t rows() const noexcept { return rows_; }
    constexpr std::size_t columns() const noexcept { return columns_; }
    constexpr std::size_t stride() const noexcept { return stride_; }
    constexpr T &operator()(std::size_t row, std::size_t column) const noexcept { return data_[row * stride_ + column]; }
    constexpr span<T> row(std::size_t row) const noexcept { return span<T>(data_ + row * stride_, columns_); }

private:
    T *data_ = nullptr;
    std::size_t rows_ = 0, columns_ = 0, stride_ = 0;
};

/// A view of up to three dimensions that the library reads. A default-constructed view means "not given".
class const_tensor {
public:
    constexpr const_tensor() noexcept : raw_{} {}
    /// Creates a view from the C interface's struct, for memory of any device.
    constexpr explicit const_tensor(const ols_tensor_t &raw) noexcept : raw_(raw) {}

    constexpr const ols_tensor_t &raw() const noexcept { return raw_; }
    /// Returns a pointer to the struct, or NULL if the tensor is not given.
    constexpr const ols_tensor_t *raw_or_null() const noexcept { return is_given() ? &raw_ : nullptr; }
    constexpr bool is_given() const noexcept { return raw_.dtype_bits != 0 || raw_.data != nullptr; }
    /// One of `OLS_DTYPE_...`.
    constexpr std::int32_t dtype() const noexcept { return raw_.dtype_code | raw_.dtype_bits << 8; }
    constexpr std::int32_t dimensions() const noexcept { return raw_.ndim; }
    /// The size of dimension 0, 1 or 2.
    constexpr std::int64_t size(std::size_t dimension) const noexcept { return raw_.shape[dimension]; }
    /// The stride of a dimension, in elements.
    constexpr std::int64_t stride(std::size_t dimension) const noexcept { return raw_.strides[dimension]; }

private:
    ols_tensor_t raw_;
};

/// A view that the library may also write to.
class tensor : public const_tensor {
public:
    using const_tensor::const_tensor;
};

namespace detail {

/// The view for a pointer to T: writable unless T is const.
template <class T>
using view_of = std::conditional_t<std::is_const_v<T>, const_tensor, tensor>;

template <class T>
ols_tensor_t raw_view(T *data, std::size_t dimensions, const std::array<std::int64_t, 3> &shape) noexcept {
    ols_tensor_t raw = ols_tensor_3d(data, dtype<std::remove_cv_t<T>>::value, shape[0], shape[1], shape[2]);
    raw.ndim = static_cast<std::int32_t>(dimensions);
    return raw;
}

template <class Container>
using elements_of = std::remove_pointer_t<decltype(std::declval<Container &>().data())>;

[[noreturn]] inline void raise_length(std::size_t length, std::size_t dimensions, const std::array<std::int64_t, 3> &shape) {
    std::string text;
    for (std::size_t d = 0; d < dimensions; d++) text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
    throw error(OLS_STATUS_INVALID_SHAPE, "ols::view: a container of " + std::to_string(length) + " elements cannot have shape (" + text + ")");
}

/// Returns whether a container of `length` elements has exactly as many elements as the shape.
inline bool fits(std::size_t length, std::size_t dimensions, const std::array<std::int64_t, 3> &shape) noexcept {
    std::size_t count = 1;
    for (std::size_t d = 0; d < dimensions; d++) {
        const auto size = static_cast<std::size_t>(shape[d]);
        if (shape[d] < 0 || (size != 0 && count > static_cast<std::size_t>(-1) / size)) return false;
        count *= size;
    }
    return count == length;
}

} // namespace detail

/// Creates a row-major view of one to three dimensions: `view(pointer, n, k)`.
template <class T, class... Sizes, class = std::enable_if_t<sizeof...(Sizes) != 0>>
detail::view_of<T> view(T *data, Sizes... sizes) noexcept {
    static_assert(sizeof...(Sizes) <= 3 && (std::is_integral_v<Sizes> && ...), "up to three sizes");
    std::array<std::int64_t, 3> shape = {static_cast<std::int64_t>(sizes)...};
    for (std::size_t d = sizeof...(Sizes); d < 3; d++) shape[d] = 1;
    return detail::view_of<T>(detail::raw_view(data, sizeof...(Sizes), shape));
}

/// Creates a view of a container with data() and size(), such as a vector, in the given shape, as in
/// `view(logits, n, k)`, or one-dimensional if no shape is given. Throws `OLS_STATUS_INVALID_SHAPE` if the container
/// has a different number of elements.
template <class Container, class... Sizes, class T = detail::elements_of<Container>>
detail::view_of<T> view(Container &container, Sizes... sizes) {
    static_assert(sizeof...(Sizes) <= 3 && (std::is_integral_v<Sizes> && ...), "up to three sizes");
    std::array<std::int64_t, 3> shape = {static_cast<std::int64_t>(sizes)...};
    if constexpr (sizeof...(Sizes) == 0) {
        shape[0] = static_cast<std::int64_t>(container.size());
    } else {
        if (!detail::fits(container.size(), sizeof...(Sizes), shape)) detail::raise_length(container.size(), sizeof...(Sizes), shape);
    }
    constexpr std::size_t dimensions = sizeof...(Sizes) == 0 ? 1 : sizeof...(Sizes);
    for (std::size_t d = dimensions; d < 3; d++) shape[d] = 1;
    return detail::view_of<T>(detail::raw_view(container.data(), dimensions, shape));
}

/// Creates a view of an array, in its shape.
template <class T, std::size_t N>
detail::view_of<T> view(T (&array)[N]) noexcept {
    return view(&array[0], N);
}
template <class T, std::size_t N, std::size_t K>
detail::view_of<T> view(T (&array)[N][K]) noexcept {
    return view(&array[0][0], N, K);
}

/// Creates a view of a single value, with 0 dimensions.
template <class T>
detail::view_of<T> scalar(T &value) noexcept {
    return detail::view_of<T>(ols_tensor_0d(&value, dtype<std::remove_cv_t<T>>::value));
}

/// Creates a view with strides, in elements: `strided(pointer, {n, k}, {1, n})` is column-major. Throws
/// `OLS_STATUS_INVALID_SHAPE` for more than three dimensions, or if the numbers of strides and sizes differ.
template <class T>
detail::view_of<T> strided(T *data, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides) {
    if (shape.size() != strides.size() || shape.size() > 3) {
        throw error(OLS_STATUS_INVALID_SHAPE, "ols::strided: " + std::to_string(shape.size()) + " sizes and " + std::to_string(strides.size()) +
                                                  " strides; the numbers must be equal, and at most 3");
    }
    ols_tensor_t raw = ols_tensor_0d(data, dtype<std::remove_cv_t<T>>::value);
    raw.ndim = static_cast<std::int32_t>(shape.size());
    for (std::size_t d = 0; d < shape.size(); d++) {
        raw.shape[d] = shape.begin()[d];
        raw.strides[d] = strides.begin()[d];
    }
    return detail::view_of<T>(raw);
}

} // namespace ols

#endif
