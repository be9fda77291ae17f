package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"libols/examples/go/internal/images"
	"libols/examples/go/internal/metrics"
	"libols/examples/go/internal/perceptron"
)

func printTable(out io.Writer, s *settings, data *images.Data, results []result, sizes [3]int) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "Training labels\tLoss\tTest\tTest NLL\tTest\tTest accuracy %\tTraining\tWrong labels")
	fmt.Fprintln(table, "\t\taccuracy %\t(nats)\tECE %\tstopped early\taccuracy %\tlearned %")
	previous := ""
	for _, r := range results {
		labels, learned := "clean labels", "–"
		if r.noisy {
			labels, learned = fmt.Sprintf("%g %% wrong labels", 100*s.noise), fmt.Sprintf("%.1f", 100*r.wrongLearned)
		}
		shown := labels
		if labels == previous {
			// Each kind of labels is named once.
			shown = ""
		}
		previous = labels
		fmt.Fprintf(table, "%s\t%s\t%.1f\t%.3f\t%.1f\t%.1f\t%.1f\t%s\n", shown, r.loss.name, 100*r.testAccuracy, r.testNLL, 100*r.testECE,
			100*r.earlyStopped, 100*r.trainAccuracy, learned)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, `
%s: %d training, %d validation and %d test images; one seed (%d), whose split, first weights, batches and wrong labels the three
losses share. A perceptron with two hidden layers of %d; SGD with momentum %g, weight decay %g, learning rate %g to 0 (cosine),
batches of %d, %d epochs. Label smoothing: eps %g; online label smoothing: alpha %g. Numbers are those of the last epoch. NLL: negative
log-likelihood; ECE: expected calibration error, %d bins. Stopped early: at the best epoch by validation labels that are as wrong as the
training labels. Training accuracy: on the labels as given, wrong ones included.
`, data.Name, sizes[0], sizes[1], sizes[2], s.seed, s.hidden, perceptron.Momentum, s.decay, s.rate, s.batch, s.epochs, s.smoothing, s.alpha,
		metrics.Bins)
	return err
}
