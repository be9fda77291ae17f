package main

import (
	"gonum.org/v1/gonum/mat"

	"libols/examples/go/internal/images"
	"libols/examples/go/internal/metrics"
	"libols/examples/go/internal/perceptron"
	"libols/ols"
	"libols/ols/olsgonum"
)

// loss is one of the three losses, each a criterion of libols.
type loss struct {
	name    string
	options func(*settings) ols.Options
	// learns is true if the loss learns soft labels. The others accumulate nothing and never end an epoch.
	learns bool
}

var losses = []loss{
	{"cross entropy", func(*settings) ols.Options { return ols.Options{Alpha: ols.Ptr(1.0), Mode: ols.Eval} }, false},
	// (1 - eps) * onehot + eps / K.
	{"label smoothing", func(s *settings) ols.Options {
		return ols.Options{Alpha: ols.Ptr(1 - s.smoothing), Initial: ols.InitialUniform, Mode: ols.Eval}
	}, false},
	// The first epoch uses classic label smoothing; from the second one on, the soft labels are measured.
	{"online label smoothing", func(s *settings) ols.Options {
		return ols.Options{Alpha: &s.alpha, Initial: ols.InitialSmoothing, Smoothing: &s.smoothing}
	}, true},
}

// trial is one training run.
type trial struct {
	loss      loss
	noisy     bool
	criterion *ols.Criterion
}

func newTrial(loss loss, noisy bool, s *settings, classes int) (trial, error) {
	options := loss.options(s)
	options.Classes = classes
	// The trials run in parallel, with one thread each.
	options.Threads = ols.Ptr(1)
	criterion, err := ols.New(options)
	return trial{loss, noisy, criterion}, err
}

// result is the outcome of a trial.
type result struct {
	trial
	testAccuracy, testNLL, testECE, earlyStopped, trainAccuracy float64
	// wrongLearned is the fraction of the wrong training labels that the network has memorised.
	wrongLearned float64
}

// examples are images and labels in the form that the network expects.
type examples struct {
	images *mat.Dense
	labels []int
}

func examplesOf(part images.Part, labels []int) examples {
	pixels := mat.NewDense(len(part.Indices), part.Width*part.Height, nil)
	for i, index := range part.Indices {
		pixels.SetRow(i, part.Image(index))
	}
	return examples{pixels, labels}
}

func (t trial) train(s *settings, classes int, trainPart, validationPart, testPart images.Part) (result, error) {
	result := result{trial: t}
	trueLabels, validationLabels := trainPart.TrueLabels(), validationPart.TrueLabels()
	labels := trueLabels
	if t.noisy {
		wrong := random(s.seed, wrongLabels)
		labels = images.WithWrongLabels(labels, classes, s.noise, wrong)
		validationLabels = images.WithWrongLabels(validationLabels, classes, s.noise, wrong)
	}
	train, validation := examplesOf(trainPart, labels), examplesOf(validationPart, validationLabels)
	test := examplesOf(testPart, testPart.TrueLabels())

	pixels := trainPart.Width * trainPart.Height
	network := perceptron.New(random(s.seed, weights), pixels, s.hidden, s.hidden, classes)
	shuffle := random(s.seed, batches)
	perEpoch := (len(labels) + s.batch - 1) / s.batch
	best := -1.0
	for epoch := range s.epochs {
		order := shuffle.Perm(len(labels))
		for batch := range perEpoch {
			chosen := order[batch*s.batch : min((batch+1)*s.batch, len(order))]
			input, targets := mat.NewDense(len(chosen), pixels, nil), make([]int, len(chosen))
			for i, index := range chosen {
				input.SetRow(i, train.images.RawRowView(index))
				targets[i] = labels[index]
			}
			// The gradient is written in place of the logits.
			logits := network.Logits(input)
			view := olsgonum.Dense(logits)
			if _, err := t.criterion.LossAndGrad(&ols.Batch{Logits: view, Targets: ols.Vector(targets)}, view); err != nil {
				return result, err
			}
			rate := perceptron.Cosine(s.rate, epoch*perEpoch+batch, s.epochs*perEpoch)
			network.Step(logits, rate, s.decay)
		}
		if t.loss.learns {
			// Computes the soft labels of the next epoch.
			if err := t.criterion.NextEpoch(); err != nil {
				return result, err
			}
		}
		predictions := metrics.Softmax(network.Logits(test.images))
		result.testAccuracy = metrics.Accuracy(predictions, test.labels)
		result.testNLL = metrics.NLL(predictions, test.labels)
		result.testECE = metrics.ECE(predictions, test.labels)
		// The best epoch is selected by validation labels that are as noisy as the training labels.
		if accuracy := metrics.Accuracy(network.Logits(validation.images), validation.labels); accuracy > best {
			best, result.earlyStopped = accuracy, result.testAccuracy
		}
	}
	predictions := network.Logits(train.images)
	result.trainAccuracy = metrics.Accuracy(predictions, labels)
	wrong, learned := 0, 0
	for i, label := range labels {
		if label == trueLabels[i] {
			continue
		}
		wrong++
		if class, _ := metrics.Top(predictions.RawRowView(i)); class == label {
			learned++
		}
	}
	result.wrongLearned = float64(learned) / float64(max(wrong, 1))
	return result, nil
}
