// Package metrics says how good predictions are.
package metrics

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// Bins of equal width for calibration, as in Guo et al. 2017.
const Bins = 15

// Softmax makes probabilities of logits (N, classes), a row per image, in place.
func Softmax(logits *mat.Dense) *mat.Dense {
	rows, _ := logits.Dims()
	for i := range rows {
		row := logits.RawRowView(i)
		largest, total := math.Inf(-1), 0.0
		for _, value := range row {
			largest = max(largest, value)
		}
		for k, value := range row {
			row[k] = math.Exp(value - largest)
			total += row[k]
		}
		for k := range row {
			row[k] /= total
		}
	}
	return logits
}

// Top gives the likeliest class of an image, and its probability.
func Top(row []float64) (class int, confidence float64) {
	for k, value := range row {
		if value > row[class] {
			class = k
		}
	}
	return class, row[class]
}

// Accuracy is the share of the predictions that name the label.
func Accuracy(probabilities *mat.Dense, labels []int) float64 {
	right := 0
	for i, label := range labels {
		if class, _ := Top(probabilities.RawRowView(i)); class == label {
			right++
		}
	}
	return float64(right) / float64(len(labels))
}

// NLL is the negative log-likelihood of the labels, mean in nats.
func NLL(probabilities *mat.Dense, labels []int) float64 {
	total := 0.0
	for i, label := range labels {
		// One probability that underflowed must not make the mean infinite.
		total -= math.Log(max(probabilities.At(i, label), 0x1p-126))
	}
	return total / float64(len(labels))
}

// ECE is the expected calibration error: the mean gap between confidence and accuracy, weighed by the bins' counts.
func ECE(probabilities *mat.Dense, labels []int) float64 {
	var gaps [Bins]float64
	for i, label := range labels {
		class, confidence := Top(probabilities.RawRowView(i))
		bin := min(int(confidence*Bins), Bins-1)
		gaps[bin] += confidence
		if class == label {
			gaps[bin]--
		}
	}
	total := 0.0
	for _, gap := range gaps {
		total += math.Abs(gap)
	}
	return total / float64(len(labels))
}
