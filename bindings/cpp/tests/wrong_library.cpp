// Run with another libols (wrong_library.c): every use is an error that names both versions and the file.
#include "check.hpp"

int main(int, char **arguments) {
    test::begin("r01 a library of another version");
    for (int time = 0; time < 2; time++) {
        const std::string words = std::string("libols 9.8.7 with ABI version 99|compiled for libols " OLS_VERSION "|") + arguments[1];
        THROWS(OLS_STATUS_UNSUPPORTED, words, ols::criterion(3));
        THROWS(OLS_STATUS_UNSUPPORTED, words, ols::options(3));
        THROWS(OLS_STATUS_UNSUPPORTED, words, ols::batch({}, {}));
        THROWS(OLS_STATUS_UNSUPPORTED, words, ols::criterion::own(nullptr));
    }
    return test::finish("wrong library");
}
