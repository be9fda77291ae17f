// Options reach the library and come back; errors keep its messages.
#include "rules.hpp"

#include <cmath>
#include <cstring>
#include <thread>

#include <dlfcn.h>

namespace rules {

namespace {

void options() {
    test::begin("r04 r22 options that are not set keep the defaults of ols_options_init, byte for byte");
    ols_options_t raw;
    ols::check(ols_options_init(&raw, sizeof raw));
    raw.num_classes = 7;
    raw.alpha = 0.25;
    const auto set = ols::options(7).alpha(0.25);
    EXPECT(std::memcmp(&set.raw(), &raw, sizeof raw) == 0);
    const auto paper = ols::options(7).preset(ols::preset::paper);
    EXPECT(paper.initial() == ols::initial::zero && paper.empty_class() == ols::empty_class::uniform);
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "preset|99", ols::options(7).preset(static_cast<ols::preset>(99)));

    test::begin("r13 r22 all options reach the library and can be retrieved, with copies of their tensors");
    auto all = std::make_unique<ols::options>(3);
    std::vector<double> weights = {1, 0.5, 2};
    all->alpha(0.3).momentum(0.4).freeze_above(0.95).min_count(2).ignore_index(255).empty_class(ols::empty_class::initial);
    all->reduction(ols::reduction::sum).mode(ols::mode::eval).threads(1).class_weights(ols::view(weights));
    all->initial_soft_labels({0, 1, 2, 3, 4, 5, 6, 7, 8});
    ols::criterion criterion(*all);
    all.reset();
    weights.assign(3, 9);
    const ols::options back = criterion.options();
    criterion.close();
    EXPECT(back.num_classes() == 3 && back.alpha() == 0.3 && back.momentum() == 0.4 && back.freeze_above() == 0.95);
    EXPECT(back.min_count() == 2 && back.ignore_index() == 255 && back.empty_class() == ols::empty_class::initial);
    EXPECT(back.reduction() == ols::reduction::sum && back.mode() == ols::mode::eval && back.threads() == 1);
    EXPECT(back.device_type() == OLS_DEVICE_CPU && back.device_id() == 0);
    EXPECT(back.initial() == ols::initial::matrix && back.initial_soft_labels().size(0) == 3);
    EXPECT(static_cast<const double *>(back.class_weights().raw().data)[1] == 0.5);
    EXPECT(ols::criterion(ols::options(3).smoothing(0.2)).options().smoothing() == 0.2);
    const ols::criterion again(back);
    EXPECT(again.soft_labels()(2, 1) == 7);
    ols::options source = ols::options(3).class_weights({1, 2, 3});
    { const ols::options destination = std::move(source); }
    EXPECT(static_cast<const double *>(source.class_weights().raw().data)[2] == 3); // NOLINT: use after move is the test

    for (const auto value : {ols::initial::smoothing, ols::initial::uniform, ols::initial::zero, ols::initial::one_hot, ols::initial::matrix}) {
        EXPECT(std::string(ols::to_string(value)) != "unknown");
    }
    EXPECT(std::string(ols::to_string(static_cast<ols::initial>(99))) == "unknown");
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "num_classes|1", ols::criterion(1));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "alpha|1.5", ols::criterion(ols::options(3).alpha(1.5)));
    THROWS(OLS_STATUS_INVALID_SHAPE, "class_weights", ols::criterion(ols::options(3).class_weights({1, 2})));
    THROWS(OLS_STATUS_INVALID_SHAPE, "initial_soft_labels|8 values", ols::options(3).initial_soft_labels(std::vector<float>(8)));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "initial", ols::criterion(ols::options(3).initial(static_cast<ols::initial>(77))));
    // Without a driver it is unsupported; with a driver there is no such device.
    const bool has_driver = dlopen("libcuda.so", RTLD_LAZY) != nullptr || dlopen("libcuda.so.1", RTLD_LAZY) != nullptr;
    THROWS(has_driver ? OLS_STATUS_INVALID_DEVICE : OLS_STATUS_UNSUPPORTED, has_driver ? "99" : "no CUDA driver",
           ols::criterion(ols::options(3).device(OLS_DEVICE_CUDA, 99)));
}

void errors() {
    ols::criterion criterion(static_cast<std::int64_t>(K));
    Data data;
    test::begin("r05 r06 r09 each error keeps the library's message; a later failure does not overwrite it");
    std::string first, second;
    data.targets[3] = 1003;
    try {
        criterion.loss(data.batch());
    } catch (const ols::error &error) {
        try {
            criterion.set_alpha(7);
        } catch (const ols::error &inner) {
            second = inner.what();
        }
        first = error.what();
        EXPECT(error.status() == OLS_STATUS_TARGET_OUT_OF_RANGE && std::string(error.name()) == "TARGET_OUT_OF_RANGE");
    }
    EXPECT(first == "ols_forward: target[3] = 1003 is outside [0, 4) and is not ignore_index (-100)");
    EXPECT(second.find("alpha") != std::string::npos);
    // In several threads at once, each with its own message.
    std::vector<std::thread> threads;
    std::vector<int> wrong(4);
    for (std::size_t t = 0; t < wrong.size(); t++) {
        threads.emplace_back([&criterion, &wrong, t] {
            for (int i = 0; i < 200; i++) {
                Data own;
                own.targets[t] = 5000 + i;
                try {
                    criterion.loss(own.batch());
                    wrong[t]++;
                } catch (const ols::error &error) {
                    wrong[t] += std::string(error.what()).find("target[" + std::to_string(t) + "] = " + std::to_string(5000 + i)) == std::string::npos;
                }
            }
        });
    }
    for (auto &thread : threads) thread.join();
    for (const int count : wrong) EXPECT(count == 0);

    test::begin("r07 an unknown status is kept");
    try {
        ols::check(ols_set_alpha(criterion.get(), 0.5));
        ols::check(static_cast<ols_status_t>(77));
        EXPECT(false);
    } catch (const ols::error &error) {
        EXPECT(error.code() == 77 && std::string(error.name()) == "UNKNOWN" && std::string(error.what()).find("77") != std::string::npos);
    }
    test::begin("r08 the failed calls have changed nothing, and the next call works");
    EXPECT(criterion.save() == ols::criterion(static_cast<std::int64_t>(K)).save());
    EXPECT(std::isfinite(criterion.loss(Data().batch())));

    // Errors that only the wrapper can detect.
    std::vector<float> short_logits(N * K - 1);
    THROWS(OLS_STATUS_INVALID_SHAPE, "23 elements|(6, 4)", ols::view(short_logits, N, K));
    THROWS(OLS_STATUS_INVALID_SHAPE, "(-6, 4)", ols::view(short_logits, -6, 4));
    THROWS(OLS_STATUS_INVALID_SHAPE, "2 sizes and 1 strides", ols::strided(short_logits.data(), {2, 3}, {3}));
    THROWS(OLS_STATUS_INVALID_SHAPE, "targets", criterion.loss(ols::batch(data.logits_view(), ols::view(data.targets.data(), 5))));
    std::vector<std::int64_t> integers(N * K);
    THROWS(OLS_STATUS_INVALID_DTYPE, "logits", criterion.loss(ols::batch(ols::view(integers, N, K), ols::view(data.targets))));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "targets", criterion.loss(ols::batch(data.logits_view(), {})));
}

} // namespace

void options_and_errors() {
    options();
    errors();
}

} // namespace rules
