// A criterion as a handle: one owner, calls from several threads, a forked process.
#include "rules.hpp"

#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace rules {

namespace {

void owners(const std::string &folder) {
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

} // namespace

void handles(const std::string &folder) {
    owners(folder);
    threads();
    forks();
}

} // namespace rules
