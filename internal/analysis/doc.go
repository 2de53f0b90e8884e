// Package analysis decides: what a run will be able to answer (NewPlan), in
// which order it measures (Orders), and what its trials say (Analyse). It is
// the one place that decides what is significant; every surface shows its
// Result. The method is described in docs/method.md.
package analysis
