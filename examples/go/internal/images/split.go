package images

import (
	"math/rand/v2"
)

// Part is a selection of images.
type Part struct {
	*Set
	Indices []int
}

// TrueLabels returns the classes.
func (p Part) TrueLabels() []int {
	labels := make([]int, len(p.Indices))
	for i, index := range p.Indices {
		labels[i] = p.Labels[index]
	}
	return labels
}

// Split draws training, validation and test images in the ratio 6:1:2, with at most limit training images.
func (d *Data) Split(random *rand.Rand, limit int) (train, validation, test Part) {
	order := random.Perm(d.Train.Len())
	share := 9
	if d.Test != nil {
		share = 7
	}
	n := min(limit, len(order)*6/share)
	end := n + max(n/6, 1)
	train, validation = Part{d.Train, order[:n]}, Part{d.Train, order[n:end]}
	if d.Test != nil {
		order = random.Perm(d.Test.Len())
		return train, validation, Part{d.Test, order[:min(len(order), (n+2)/3)]}
	}
	return train, validation, Part{d.Train, order[end:min(len(order), end+(n+2)/3)]}
}

// WithWrongLabels replaces a fraction of the labels by another class, chosen uniformly.
func WithWrongLabels(labels []int, classes int, share float64, random *rand.Rand) []int {
	noisy := append([]int(nil), labels...)
	order := random.Perm(len(labels))
	for _, i := range order[:int(share*float64(len(labels))+0.5)] {
		noisy[i] = (labels[i] + 1 + random.IntN(classes-1)) % classes
	}
	return noisy
}
