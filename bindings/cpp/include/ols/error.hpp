// The exception for failed calls, and the check that the library is the one that these headers were written for.
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

/// A failed call. `what()` is the library's message, with the function, the argument, the rule and the value. Outputs
/// and state are unchanged.
class error : public std::runtime_error {
public:
    error(ols_status_t status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /// Returns one of `OLS_STATUS_...`, or a number that a later library has added.
    ols_status_t status() const noexcept { return status_; }
    /// Returns the status as a number.
    std::int32_t code() const noexcept { return static_cast<std::int32_t>(status_); }
    /// Returns the name of the status, such as "INVALID_SHAPE", or "UNKNOWN" for a number unknown to the library.
    const char *name() const noexcept { return ols_status_string(code()); }

private:
    ols_status_t status_;
};

namespace detail {

/// Throws the error of the latest call of this thread. There must be no other call in between.
[[noreturn]] inline void raise(ols_status_t status) {
    std::string message = ols_last_error();
    if (message.empty()) {
        const auto code = static_cast<std::int32_t>(status);
        message = std::string("libols returned status ") + std::to_string(code) + " (" + ols_status_string(code) + ")";
    }
    throw error(status, message);
}

/// Returns the path of the loaded library, for the message below.
inline std::string library_path() {
#if defined(__unix__) || defined(__APPLE__)
    Dl_info info = {};
    // NOLINTNEXTLINE: dladdr takes the address of a function as an object pointer.
    if (dladdr(reinterpret_cast<void *>(&ols_abi_version), &info) != 0 && info.dli_fname != nullptr) return info.dli_fname;
#endif
    return "the libols that was linked";
}

/// Returns whether a library with these versions can be used by programs compiled with this header. Before 1.0 the ABI
/// may change with each minor version, so the minor versions must be equal too.
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

/// Called by whatever is used first: options, batches or criteria. Throws on every call if the library is incompatible.
inline void require_library() {
    static const bool checked = checked_library();
    static_cast<void>(checked);
}

} // namespace detail

/// Throws `ols::error` unless `status` is `OLS_STATUS_OK`; for calls of the C interface on handles and structs of these
/// headers.
inline void check(ols_status_t status) {
    if (status != OLS_STATUS_OK) detail::raise(status);
}

/// Returns the version of the loaded library, such as "0.1.0"; `OLS_VERSION` is that of the headers.
inline const char *version() noexcept { return ols_version(); }

} // namespace ols

#endif
