// The state: files, bytes, the caller's memory, and views of the statistics and the soft labels.
#include "rules.hpp"

#include <cmath>
#include <fstream>

namespace rules {

namespace {

void saved(const std::string &folder) {
    test::begin("r25 the file and the bytes in memory are equal, and a resumed run continues bitwise identically");
    const auto options = ols::options(static_cast<std::int64_t>(K)).alpha(0.3).momentum(0.25).class_weights({1, 2, 0.5, 1});
    ols::criterion never_stopped(options);
    for (int step = 0; step < 3; step++) never_stopped.loss(Data(step).batch());
    never_stopped.next_epoch();
    never_stopped.loss(Data(3).batch());
    const std::string path = folder + "/rules.ols";
    never_stopped.save(path);
    std::ifstream file(path, std::ios::binary);
    const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    EXPECT(bytes == never_stopped.save());
    ols::criterion resumed(static_cast<std::int64_t>(K));
    resumed.load(path);
    EXPECT(resumed.options().alpha() == 0.3 && resumed.options().class_weights().is_given() && resumed.epoch() == 1);
    for (ols::criterion *each : {&never_stopped, &resumed}) {
        each->loss(Data(4).batch());
        each->next_epoch();
    }
    EXPECT(resumed.save() == never_stopped.save());
    // Through the C interface.
    ols::check(ols_load_memory(resumed.get(), bytes.data(), bytes.size(), nullptr));
    EXPECT(resumed.save() == bytes);
    resumed.load(bytes);
    THROWS(OLS_STATUS_INVALID_FILE, "truncated", resumed.load(bytes.data(), bytes.size() - 1));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "num_classes|4", ols::criterion(5).load(bytes));
    THROWS(OLS_STATUS_INVALID_FILE, "truncated", resumed.load(std::vector<std::uint8_t>()));
    THROWS(OLS_STATUS_IO, "missing", resumed.save(folder + "/missing/file"));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "zero byte", resumed.save(path + std::string(1, '\0') + "tail"));
    EXPECT(resumed.save() == bytes);

    // State in the caller's memory, which another criterion adopts.
    std::vector<float> labels(K * K);
    std::vector<std::int64_t> sums(K * K), counts(K), counters(OLS_COUNTERS);
    const auto lend = [&](bool adopt) {
        ols::options lent(static_cast<std::int64_t>(K));
        lent.state_memory(ols::view(labels, K, K), ols::view(sums, K, K), ols::view(counts), ols::view(counters));
        return lent.adopt_state(adopt);
    };
    {
        ols::criterion lender(lend(false));
        lender.loss(Data(0).batch());
        EXPECT(lender.soft_labels().data() == labels.data() && lender.statistics().counts.data() == counts.data());
    }
    EXPECT(counts[1] > 0);
    ols::criterion heir(lend(true)), plain(static_cast<std::int64_t>(K));
    plain.loss(Data(0).batch());
    EXPECT(heir.save() == plain.save());
    heir.set_epoch(5);
    EXPECT(heir.epoch() == 5);
}

void statistics() {
    test::begin("r26 views are in place, that of the soft labels is read-only; summed over criteria, they give the result of one criterion");
    ols::criterion alone(static_cast<std::int64_t>(K)), first(static_cast<std::int64_t>(K)), second(static_cast<std::int64_t>(K));
    static_assert(std::is_same_v<decltype(first.soft_labels()(0, 0)), const float &>, "read-only");
    for (int step = 0; step < 6; step++) {
        alone.loss(Data(step).batch());
        (step % 2 == 0 ? first : second).loss(Data(step).batch());
    }
    const auto a = first.statistics(), b = second.statistics();
    for (std::size_t j = 0; j < K; j++) {
        a.counts[j] += b.counts[j];
        for (std::size_t k = 0; k < K; k++) a.sums(j, k) += b.sums(j, k);
    }
    for (std::size_t i = 0; i < a.counters.size(); i++) a.counters[i] += b.counters[i];
    EXPECT(first.save() == alone.save());
    first.next_epoch();
    alone.next_epoch();
    EXPECT(first.save() == alone.save());
    const auto labels = first.soft_labels();
    EXPECT(labels.rows() == K && labels.columns() == K && labels.row(1).size() == K);
    for (std::size_t j = 0; j < K; j++) {
        double sum = 0;
        for (const float value : labels.row(j)) sum += static_cast<double>(value);
        EXPECT(std::fabs(sum - 1) < 1e-6);
    }
    const auto report = first.report();
    EXPECT(report.epoch == 1 && report.rows_measured + report.rows_kept == static_cast<std::int64_t>(K));
    std::vector<float> replaced(K * K, 0.25f);
    first.set_soft_labels(ols::view(replaced, K, K));
    EXPECT(labels(3, 3) == 0.25f);
    EXPECT(ols::span<const float>(ols::span<float>(replaced.data(), 2))[1] == 0.25f);
    // Statistics from given probabilities.
    ols::criterion given(static_cast<std::int64_t>(K));
    std::vector<float> probabilities = {0.7f, 0.1f, 0.1f, 0.1f};
    std::vector<std::uint8_t> target = {0};
    given.accumulate(ols::batch(ols::view(probabilities, 1, K), ols::view(target)));
    EXPECT(given.statistics().counts[0] == 1);
}

} // namespace

void state(const std::string &folder) {
    saved(folder);
    statistics();
}

} // namespace rules
