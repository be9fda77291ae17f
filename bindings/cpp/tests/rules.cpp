// The rules of bindings/RULES.md, tested through ols/ols.hpp; each test names its rules. Arguments: the path of ols.h, a folder for files.
#include "check.hpp"

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

double loss_in_another_unit(ols::criterion &criterion);

namespace {

constexpr std::size_t N = 6, K = 4;

struct Data {
    std::vector<float> logits = std::vector<float>(N * K), grad = std::vector<float>(N * K);
    std::vector<std::int64_t> targets = std::vector<std::int64_t>(N);

    explicit Data(int step = 0) {
        for (std::size_t i = 0; i < N * K; i++) logits[i] = static_cast<float>((static_cast<int>(i) * 37 + step * 101) % 19) / 8;
        for (std::size_t n = 0; n < N; n++) {
            targets[n] = static_cast<std::int64_t>(n) % static_cast<std::int64_t>(K);
            if (n % 3 != 0) logits[n * K + n % K] = 5;
        }
    }
    ols::const_tensor logits_view() const { return ols::view(logits, N, K); }
    ols::batch batch() const { return ols::batch(logits_view(), ols::view(targets)); }
};

void loading() {
    test::begin("r02 loading the library with this program has had no side effects");
    std::ifstream status("/proc/self/status"), maps("/proc/self/maps");
    bool is_alone = false;
    for (std::string line; std::getline(status, line);) is_alone = is_alone || line == "Threads:\t1";
    EXPECT(is_alone);
    const std::string mapped{std::istreambuf_iterator<char>(maps), std::istreambuf_iterator<char>()};
    EXPECT(!mapped.empty() && mapped.find("libcuda") == std::string::npos);
}

void versions() {
    test::begin("r01 equal ABI versions, and equal minor versions below 1.0");
    using ols::detail::is_compatible;
    EXPECT(is_compatible(OLS_ABI_VERSION, OLS_VERSION));
    EXPECT(!is_compatible(OLS_ABI_VERSION + 1, OLS_VERSION));
    const std::string other_minor = std::to_string(OLS_VERSION_MAJOR) + "." + std::to_string(OLS_VERSION_MINOR + 1) + ".0";
    EXPECT(is_compatible(OLS_ABI_VERSION, other_minor.c_str()) == (OLS_ABI_VERSION != 0));
    EXPECT(is_compatible(OLS_ABI_VERSION, "garbage") == (OLS_ABI_VERSION != 0));
    EXPECT(std::string(ols::version()) == OLS_VERSION);
    EXPECT(ols::detail::library_path().find("ols") != std::string::npos || ols::detail::library_path().find("rules") != std::string::npos);
}

void constants(const char *header) {
    test::begin("r03 the names and numbers of enums and flags equal those of the header, in both directions");
    std::map<std::string, std::int64_t> here = {
        {"INITIAL_SMOOTHING", static_cast<int>(ols::initial::smoothing)},
        {"INITIAL_UNIFORM", static_cast<int>(ols::initial::uniform)},
        {"INITIAL_ZERO", static_cast<int>(ols::initial::zero)},
        {"INITIAL_ONE_HOT", static_cast<int>(ols::initial::one_hot)},
        {"INITIAL_MATRIX", static_cast<int>(ols::initial::matrix)},
        {"EMPTY_CLASS_KEEP", static_cast<int>(ols::empty_class::keep)},
        {"EMPTY_CLASS_UNIFORM", static_cast<int>(ols::empty_class::uniform)},
        {"EMPTY_CLASS_INITIAL", static_cast<int>(ols::empty_class::initial)},
        {"EMPTY_CLASS_ONE_HOT", static_cast<int>(ols::empty_class::one_hot)},
        {"EMPTY_CLASS_ZERO", static_cast<int>(ols::empty_class::zero)},
        {"REDUCTION_NONE", static_cast<int>(ols::reduction::none)},
        {"REDUCTION_MEAN", static_cast<int>(ols::reduction::mean)},
        {"REDUCTION_SUM", static_cast<int>(ols::reduction::sum)},
        {"MODE_TRAIN", static_cast<int>(ols::mode::train)},
        {"MODE_EVAL", static_cast<int>(ols::mode::eval)},
        {"PRESET_REFERENCE", static_cast<int>(ols::preset::reference)},
        {"PRESET_PAPER", static_cast<int>(ols::preset::paper)},
        {"BATCH_NO_UPDATE", static_cast<int>(ols::update::no_update)},
        {"BATCH_TAKE_BACK", static_cast<int>(ols::update::take_back)},
        {"DTYPE_F32", ols::dtype<float>::value},
        {"DTYPE_F64", ols::dtype<double>::value},
        {"DTYPE_F16", ols::dtype<ols::float16>::value},
        {"DTYPE_BF16", ols::dtype<ols::bfloat16>::value},
        {"DTYPE_I64", ols::dtype<std::int64_t>::value},
        {"DTYPE_I32", ols::dtype<std::int32_t>::value},
        {"DTYPE_U8", ols::dtype<std::uint8_t>::value},
        // The only flag of the options is adopt_state().
        {"OPTIONS_ADOPT_STATE", ols::options(2).adopt_state().raw().flags},
    };
    std::ifstream file(header);
    std::size_t found = 0;
    for (std::string line; std::getline(file, line);) {
        std::string name;
        std::int64_t value = 0;
        std::istringstream words(line);
        std::string first, second, third;
        words >> first >> second >> third;
        if (first == "#define" && !third.empty()) {
            name = second;
            value = std::strtoll(third.c_str(), nullptr, 0);
        } else if (second == "=") {
            name = first;
            value = std::strtoll(third.c_str(), nullptr, 0);
        }
        if (name.rfind("OLS_", 0) != 0) continue;
        name = name.substr(4);
        bool is_ours = false;
        for (const char *group : {"INITIAL_", "EMPTY_CLASS_", "REDUCTION_", "MODE_", "PRESET_", "BATCH_", "DTYPE_", "OPTIONS_"}) {
            is_ours = is_ours || name.rfind(group, 0) == 0;
        }
        if (!is_ours) continue;
        const auto known = here.find(name);
        test::check(known != here.end() && known->second == value, __FILE__, __LINE__, "the constant of the header has the same number here", name);
        found++;
    }
    EXPECT(found == here.size());
    static_assert(ols::dtype<long>::value == (sizeof(long) == 8 ? OLS_DTYPE_I64 : OLS_DTYPE_I32), "by size");
    static_assert(ols::dtype<long long>::value == OLS_DTYPE_I64, "by size");
}

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

void handles(const std::string &folder) {
    test::begin("r10 r11 r12 a handle has one owner");
    static_assert(!std::is_copy_constructible_v<ols::criterion> && !std::is_copy_assignable_v<ols::criterion>, "a handle has one owner");
    static_assert(std::is_nothrow_move_constructible_v<ols::criterion> && std::is_nothrow_move_assignable_v<ols::criterion>, "for containers");
    Data data;
    ols::criterion criterion(static_cast<std::int64_t>(K));
    criterion.loss(data.batch());
    const auto state = criterion.save();
    ols::criterion moved = std::move(criterion);
    EXPECT(moved.save() == state);
    EXPECT(!criterion.is_open()); // NOLINT: use after move is the test
    const char *words = "closed, released or moved from";
    THROWS(OLS_STATUS_INVALID_STATE, words, criterion.loss(data.batch()));
    moved.close();
    moved.close();
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.loss(data.batch()));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.loss_and_gradient(data.batch(), ols::view(data.grad, N, K)));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.backward(data.batch(), ols::view(data.grad, N, K)));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.accumulate(data.batch()));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.next_epoch());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.report());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.soft_labels());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.set_soft_labels({}));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.statistics());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.train());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.mode());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.set_alpha(0.5));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.epoch());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.set_epoch(1));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.options());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.num_classes());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.save());
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.save(folder + "/closed"));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.load(state));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.load(folder + "/closed"));
    THROWS(OLS_STATUS_INVALID_STATE, words, moved.clone());

    // A clone is an independent criterion.
    ols::criterion one(ols::options(static_cast<std::int64_t>(K)).reduction(ols::reduction::sum));
    one.loss(data.batch());
    one.next_epoch();
    one.eval();
    ols::criterion other = one.clone();
    EXPECT(other.save() == one.save() && other.mode() == ols::mode::eval && other.options().reduction() == ols::reduction::sum && other.epoch() == 1);
    other.next_epoch();
    EXPECT(one.epoch() == 1 && other.epoch() == 2);
    swap(one, other);
    EXPECT(one.epoch() == 2 && other.epoch() == 1);
    one = std::move(other);
    EXPECT(one.epoch() == 1);

    // From and to the C interface.
    ols_criterion_t *handle = one.release();
    EXPECT(!one.is_open());
    const ols::criterion taken = ols::criterion::own(handle);
    EXPECT(taken.get() == handle && taken.epoch() == 1);
}

void calls() {
    Data data;
    ols::criterion criterion(static_cast<std::int64_t>(K));
    const double loss = criterion.loss_and_gradient(data.batch(), ols::view(data.grad, N, K));
    std::vector<float> again(N * K);
    criterion.backward(data.batch(), ols::view(again, N, K));
    EXPECT(again == data.grad && std::isfinite(loss));
    test::begin("r20 in place is opt-in; other overlaps are errors of the library");
    auto in_place = data.logits;
    criterion.loss_and_gradient(ols::batch(ols::view(in_place, N, K), ols::view(data.targets)), ols::view(in_place, N, K));
    EXPECT(in_place == data.grad);
    const ols::batch shorter(ols::view(in_place.data(), N - 1, K), ols::view(data.targets.data(), N - 1));
    THROWS(OLS_STATUS_INVALID_ARGUMENT, "overlap", criterion.loss_and_gradient(shorter, ols::view(in_place.data() + K, N - 1, K)));
    test::begin("r13 single values are stored in the batch, also in copies");
    std::vector<std::int64_t> targets2(N, 1);
    std::vector<double> lams(N, 0.25);
    auto batch = std::make_unique<ols::batch>(data.batch());
    batch->mix(ols::view(targets2), 0.25).grad_loss(2.0).update(ols::update::no_update);
    const ols::batch copy = *batch;
    batch.reset();
    std::vector<float> scaled(N * K), plain(N * K);
    const double mixed = criterion.loss_and_gradient(copy, ols::view(scaled, N, K));
    auto given = data.batch().mix(ols::view(targets2), ols::view(lams)).update(ols::update::no_update);
    EXPECT(criterion.loss_and_gradient(given, ols::view(plain, N, K)) == mixed);
    for (std::size_t i = 0; i < plain.size(); i++) EXPECT(std::fabs(scaled[i] - 2 * plain[i]) < 1e-6f);
    // f64, and one loss per sample.
    std::vector<double> doubles(data.logits.begin(), data.logits.end());
    EXPECT(std::fabs(criterion.loss(ols::batch(ols::view(doubles, N, K), ols::view(data.targets))) - loss) < 1e-6);
    ols::criterion each(ols::options(static_cast<std::int64_t>(K)).reduction(ols::reduction::none));
    std::vector<float> losses(N);
    each.forward(data.batch(), ols::view(losses));
    EXPECT(losses[0] > 0);
    THROWS(OLS_STATUS_INVALID_SHAPE, "loss", each.loss(data.batch()));
    test::begin("r18 one-based labels; the message shows the user's value");
    auto from_one = data.targets;
    for (auto &target : from_one) target++;
    EXPECT(criterion.loss(ols::batch(data.logits_view(), ols::view(from_one)).target_offset(1)) == loss);
    from_one[0] = 0;
    THROWS(OLS_STATUS_TARGET_OUT_OF_RANGE, "target[0] = 0|[1, 5)", criterion.loss(ols::batch(data.logits_view(), ols::view(from_one)).target_offset(1)));
    test::begin("r19 an empty batch");
    const std::vector<float> nothing;
    const std::vector<std::int64_t> nobody;
    EXPECT(criterion.loss(ols::batch(ols::view(nothing, 0, K), ols::view(nobody))) == 0);
    // Taking back what was added, and more than was added.
    const auto before = criterion.save();
    criterion.loss(data.batch());
    EXPECT(criterion.save() != before);
    criterion.forward(data.batch().update(ols::update::take_back), {});
    EXPECT(criterion.save() == before);
    ols::criterion fresh(static_cast<std::int64_t>(K));
    THROWS(OLS_STATUS_INVALID_STATE, "take", fresh.forward(data.batch().update(ols::update::take_back), {}));
    // Views of arrays and of single values.
    float matrix[2][3] = {};
    std::uint8_t bytes[2] = {};
    float value = 0;
    EXPECT(ols::view(matrix).dimensions() == 2 && ols::view(matrix).size(1) == 3 && ols::view(matrix).raw().data == &matrix[0][0]);
    EXPECT(ols::view(bytes).dimensions() == 1 && ols::view(bytes).dtype() == OLS_DTYPE_U8);
    EXPECT(ols::scalar(value).dimensions() == 0 && ols::scalar(value).raw().data == &value);
    static_assert(!std::is_convertible_v<ols::const_tensor, ols::tensor>, "what is read-only cannot be an output");
    static_assert(std::is_same_v<decltype(ols::view(std::declval<const std::vector<float> &>())), ols::const_tensor>, "const goes through");
    ols::criterion three(3);
    EXPECT(std::fabs(loss_in_another_unit(three) - 0.7494) < 1e-3);
}

void ends_of_epochs() {
    test::begin("r24 no other call ends an epoch");
    ols::criterion criterion(static_cast<std::int64_t>(K));
    const auto labels = [&] {
        std::vector<float> values;
        for (std::size_t j = 0; j < K; j++) values.insert(values.end(), criterion.soft_labels().row(j).begin(), criterion.soft_labels().row(j).end());
        return values;
    };
    const std::vector<float> before = labels();
    for (int step = 0; step < 20; step++) {
        criterion.loss(Data(step).batch());
        step % 2 == 0 ? criterion.eval() : criterion.train();
    }
    criterion.load(criterion.save());
    EXPECT(criterion.epoch() == 0 && labels() == before && criterion.statistics().counts[1] > 0);
    criterion.next_epoch();
    EXPECT(criterion.epoch() == 1 && labels() != before);
}

void threads() {
    test::begin("r14 several threads give the same statistics as one");
    ols::criterion alone(static_cast<std::int64_t>(K)), shared(static_cast<std::int64_t>(K));
    std::vector<std::thread> workers;
    for (int step = 0; step < 40; step++) alone.loss(Data(step).batch());
    for (int worker = 0; worker < 4; worker++) {
        workers.emplace_back([&shared, worker] {
            for (int step = worker * 10; step < worker * 10 + 10; step++) shared.loss(Data(step).batch());
        });
    }
    for (auto &worker : workers) worker.join();
    alone.next_epoch();
    shared.next_epoch();
    EXPECT(alone.save() == shared.save());
}

void forks() {
    test::begin("r15 parent and child continue with equal results");
    ols::criterion criterion(static_cast<std::int64_t>(K));
    criterion.loss(Data(1).batch());
    int pipe_ends[2];
    EXPECT(pipe(pipe_ends) == 0);
    const pid_t child = fork();
    criterion.loss(Data(2).batch());
    criterion.next_epoch();
    const auto state = criterion.save();
    if (child == 0) {
        const bool written = write(pipe_ends[1], state.data(), state.size()) == static_cast<ssize_t>(state.size());
        _exit(written ? 0 : 1);
    }
    int status = -1;
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    std::vector<std::uint8_t> other(state.size());
    EXPECT(read(pipe_ends[0], other.data(), other.size()) == static_cast<ssize_t>(other.size()) && other == state);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

void states(const std::string &folder) {
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

int main(int, char **arguments) {
    const std::string folder = arguments[2];
    loading();
    versions();
    constants(arguments[1]);
    options();
    errors();
    handles(folder);
    calls();
    ends_of_epochs();
    threads();
    forks();
    states(folder);
    statistics();
    return test::finish("rules");
}
