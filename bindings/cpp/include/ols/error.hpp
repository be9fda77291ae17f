// What a failed call becomes, and the check that the library is the one that these headers were written for.
#ifndef OLS_ERROR_HPP
#define OLS_ERROR_HPP

#include <ols.h>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace ols {

/// A call that failed. `what()` is the library's message: the function, the argument, the rule and the value. Outputs and state are as they were
/// before the call.
class error : public std::runtime_error {
public:
    error(ols_status_t status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /// One of `OLS_STATUS_...`, or a number that a later library added.
    ols_status_t status() const noexcept { return status_; }
    /// The status as a number.
    std::int32_t code() const noexcept { return static_cast<std::int32_t>(status_); }
    /// The status by name, such as "INVALID_SHAPE"; "UNKNOWN" for a number that the library does not know.
    const char *name() const noexcept { return ols_status_string(code()); }

private:
    ols_status_t status_;
};

namespace detail {

/// Throws what the latest call of this thread complained of. Nothing may come between that call and this one.
[[noreturn]] inline void raise(ols_status_t status) {
    std::string message = ols_last_error();
    if (message.empty()) {
        const auto code = static_cast<std::int32_t>(status);
        message = std::string("libols returned status ") + std::to_string(code) + " (" + ols_status_string(code) + ")";
    }
    throw error(status, message);
}

/// The file that the library was loaded from, for the message below.
inline std::string library_path() {
#if defined(__unix__) || defined(__APPLE__)
    Dl_info info = {};
    // NOLINTNEXTLINE: a function's address as an object pointer is what dladdr takes.
    if (dladdr(reinterpret_cast<void *>(&ols_abi_version), &info) != 0 && info.dli_fname != nullptr) return info.dli_fname;
#endif
    return "the libols that was linked";
}

/// Whether a library with this ABI number and version can serve programs compiled with this header. Below 1.0 the ABI may change with each
/// minor version, so that these must be equal too.
inline bool is_compatible(std::uint32_t abi_version, const char *version) noexcept {
    if (abi_version != OLS_ABI_VERSION) return false;
    if (OLS_ABI_VERSION != 0) return true;
    int major = -1, minor = -1;
    return std::sscanf(version, "%d.%d", &major, &minor) == 2 && major == OLS_VERSION_MAJOR && minor == OLS_VERSION_MINOR;
}

inline bool checked_library() {
    const std::uint32_t abi_version = ols_abi_version();
    const char *const version = ols_version();
    if (!is_compatible(abi_version, version)) {
        throw error(OLS_STATUS_UNSUPPORTED, library_path() + " is libols " + version + " with ABI version " + std::to_string(abi_version) +
                                                ", but this program was compiled for libols " + OLS_VERSION + " with ABI version " +
                                                std::to_string(OLS_ABI_VERSION));
    }
    return true;
}

/// Called by whatever comes first: options, batches, criteria. Throws each time while the library is a wrong one.
inline void require_library() {
    static const bool checked = checked_library();
    static_cast<void>(checked);
}

} // namespace detail

/// Throws `ols::error` unless `status` is `OLS_STATUS_OK`: for calls of the C interface on handles and structs of this one.
inline void check(ols_status_t status) {
    if (status != OLS_STATUS_OK) detail::raise(status);
}

/// The version of the library that is loaded, such as "0.1.0"; `OLS_VERSION` is that of the headers.
inline const char *version() noexcept { return ols_version(); }

} // namespace ols

#endif
