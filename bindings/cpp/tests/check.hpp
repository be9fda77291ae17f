// Shared by the tests: checks that report where they failed, and the return value of every test's main.
#ifndef CHECK_HPP
#define CHECK_HPP

#include <ols/ols.hpp>

#include <cstdio>
#include <functional>
#include <string>

namespace test {

inline int failures = 0, checks = 0;
inline const char *running = nullptr;
inline int checks_before = 0;

inline void end() {
    if (running == nullptr || checks != checks_before) return;
    failures++;
    std::fprintf(stderr, "\"%s\": nothing was checked\n", running);
}

/// Starts a test, which ends when the next one starts. Its name starts with the rules of bindings/RULES.md that it covers; bindings/check-rules counts them.
inline void begin(const char *name) {
    end();
    running = name;
    checks_before = checks;
}

inline void check(bool good, const char *file, int line, const char *what, const std::string &more = {}) {
    checks++;
    if (good) return;
    failures++;
    std::fprintf(stderr, "%s:%d: %s%s%s\n", file, line, what, more.empty() ? "" : ": ", more.c_str());
}

/// Checks that `call` throws ols::error with this status and a message that contains each of the words, which are separated by '|'.
inline void check_throws(const char *file, int line, const char *what, ols_status_t status, const std::string &words, const std::function<void()> &call) {
    try {
        call();
    } catch (const ols::error &error) {
        const std::string message = error.what();
        check(error.status() == status, file, line, what, "status " + std::string(error.name()) + ", message: " + message);
        for (std::size_t from = 0; from < words.size();) {
            const std::size_t to = std::min(words.find('|', from), words.size());
            const std::string word = words.substr(from, to - from);
            check(message.find(word) != std::string::npos, file, line, what, "\"" + word + "\" is not in: " + message);
            from = to + 1;
        }
        return;
    } catch (const std::exception &other) {
        return check(false, file, line, what, std::string("another exception: ") + other.what());
    }
    check(false, file, line, what, "nothing was thrown");
}

inline int finish(const char *name) {
    end();
    if (checks == 0) std::fprintf(stderr, "%s: nothing was checked\n", name);
    std::printf("%s: %d checks, %d failed\n", name, checks, failures);
    return failures == 0 && checks > 0 ? 0 : 1;
}

} // namespace test

// Not called CHECK, which LibTorch defines.
#define EXPECT(...) test::check((__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
#define THROWS(status, words, ...) test::check_throws(__FILE__, __LINE__, #__VA_ARGS__, status, words, [&] { __VA_ARGS__; })

#endif
