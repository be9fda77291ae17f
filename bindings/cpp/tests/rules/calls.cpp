// Calls on batches: loss and gradient, views, in place, Mixup, taking back; none of them ends an epoch.
#include "rules.hpp"

#include <cmath>

double loss_in_another_unit(ols::criterion &criterion);

namespace rules {

namespace {

void batches() {
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

} // namespace

void calls() {
    batches();
    ends_of_epochs();
}

} // namespace rules
