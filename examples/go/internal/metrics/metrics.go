// Package metrics measures the quality of predictions.
package metrics

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// Bins is the number of calibration bins of equal width, as in Guo et al. 2017.
const Bins = 15

// Softmax converts logits (N, classes), one row per image, to probabilities, in place.
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

// Top returns the most likely class of an image and its probability.
func Top(row []float64) (class int, confidence float64) {
	for k, value := range row {
		if value > row[class] {
			class = k
		}
	}
	return class, row[class]
}

// Accuracy returns the fraction of predictions that equal the label.
func Accuracy(probabilities *mat.Dense, labels []int) float64 {
	right := 0
	for i, label := range labels {
		if class, _ := Top(probabilities.RawRowView(i)); class == label {
			right++
		}
	}
	return float64(right) / float64(len(labels))
}

// NLL returns the mean negative log-likelihood of the labels, in nats.
func NLL(probabilities *mat.Dense, labels []int) float64 {
	total := 0.0
	for i, label := range labels {
		// A single probability that has underflowed must not make the mean infinite.
		total -= math.Log(max(probabilities.At(i, label), 0x1p-126))
	}
	return total / float64(len(labels))
}

// ECE returns the expected calibration error: the mean gap between confidence and accuracy, weighted by the number of
// predictions in each bin.
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
