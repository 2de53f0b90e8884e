package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// law is how long the oracle holds its answers.
type law struct {
	name          string
	next          func(*rand.Rand) time.Duration
	stall, period time.Duration // it freezes for stall in each period; 0: never
}

// parseLaw reads a law and its mean: "exponential 1ms"; "stall" has the
// length of a stall and its period: "stall 200ms 1s".
func parseLaw(words []string) (law, error) {
	if len(words) < 2 {
		return law{}, fmt.Errorf("want a law and its mean, have %q", words)
	}
	mean, err := time.ParseDuration(words[1])
	if err != nil {
		return law{}, err
	}
	l := law{name: words[0]}
	m := float64(mean)
	of := func(f func(*rand.Rand) float64) {
		l.next = func(r *rand.Rand) time.Duration { return time.Duration(f(r)) }
	}
	switch words[0] {
	case "constant":
		of(func(*rand.Rand) float64 { return m })
	case "exponential":
		of(func(r *rand.Rand) float64 { return r.ExpFloat64() * m })
	case "lognormal": // sigma 1
		of(func(r *rand.Rand) float64 { return m * math.Exp(r.NormFloat64()-0.5) })
	case "bimodal": // one in ten takes ten times as long as the others
		of(func(r *rand.Rand) float64 {
			if r.IntN(10) == 0 {
				return m * 10 / 1.9
			}
			return m / 1.9
		})
	case "pareto": // of shape 2.5, ended at 50 means
		of(func(r *rand.Rand) float64 { return min(50*m, m*0.6*math.Pow(1-r.Float64(), -1/2.5)) })
	case "stall":
		if len(words) != 3 {
			return law{}, fmt.Errorf("a stall has a length and a period, have %q", words)
		}
		l.stall = mean
		if l.period, err = time.ParseDuration(words[2]); err != nil {
			return law{}, err
		}
		of(func(*rand.Rand) float64 { return 0 })
	default:
		return law{}, fmt.Errorf("there is no law %q", words[0])
	}
	return l, nil
}

// accuracy holds what the generator says against what is known to be true:
// the oracle's own log, arithmetic, and queueing theory.
func (b *bench) accuracy() error {
	for _, part := range []func() error{b.serviceTimes, b.stalls, b.generatorStall, b.queues} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// serviceTimes: with Poisson arrivals at 30 % of what the oracle can do, its
// queue is part of the truth.
func (b *bench) serviceTimes() error {
	for _, name := range []string{"constant", "exponential", "lognormal", "bimodal", "pareto"} {
		var doc loadDocument
		log, err := b.withOracle([]string{name, "600us"}, func(address string) (err error) {
			doc, err = b.load("http://"+address+"/", "--rate", "500", "--connections", "64", "--duration", "10s", "--warmup", "0s")
			return err
		})
		if err != nil {
			return err
		}
		for _, q := range []struct {
			name         string
			seen, logged float64
		}{{"p50", doc.Response.P50, log.P50}, {"p90", doc.Response.P90, log.P90}, {"p99", doc.Response.P99, log.P99}} {
			figure("accuracy_"+name+"_"+q.name+"_above_log", q.seen-q.logged, fmt.Sprintf("us (of %.0f; %.2f %%)", q.logged, 100*(q.seen-q.logged)/q.logged))
		}
	}
	return nil
}

// stalls: a server that freezes for s in every period p makes the share s/p of
// evenly spaced requests late, by up to s; the quantile q of all is then
// s - (1-q)p, however many connections there are.
func (b *bench) stalls() error {
	const stall, period = 200 * time.Millisecond, time.Second
	for _, connections := range []int{1, 64} {
		var doc loadDocument
		if _, err := b.withOracle([]string{"stall", stall.String(), period.String()}, func(address string) (err error) {
			doc, err = b.load("http://"+address+"/", "--arrivals", "constant", "--rate", "500", "--connections", strconv.Itoa(connections), "--duration", "10s", "--warmup", "0s")
			return err
		}); err != nil {
			return err
		}
		for _, q := range []struct {
			name string
			at   float64
			seen float64
		}{{"p90", 0.9, doc.Response.P90}, {"p99", 0.99, doc.Response.P99}} {
			want := float64((stall - time.Duration((1-q.at)*float64(period))).Microseconds())
			figure(fmt.Sprintf("accuracy_stall_%s_%d_connections_of_truth", q.name, connections), q.seen/want, fmt.Sprintf("ratio (of %.0f us)", want))
		}
	}
	return nil
}

// generatorStall stops the worker for a moment: the verdict must say so.
func (b *bench) generatorStall() error {
	var doc loadDocument
	_, err := b.withOracle([]string{"constant", "100us"}, func(address string) (err error) {
		done := make(chan error, 1)
		go func() { done <- b.stopWorker(address) }()
		doc, err = b.load("http://"+address+"/", "--rate", "500", "--duration", "4s", "--warmup", "0s")
		if stopped := <-done; err == nil {
			err = stopped
		}
		return err
	})
	if err != nil {
		return err
	}
	noticed := 0.0
	if doc.Verdict.Status != "valid" {
		noticed = 1
	}
	figure("accuracy_stopped_generator_is_noticed", noticed, "of 1: "+doc.Verdict.Status)
	return nil
}

// stopWorker finds the worker below this process and stops it for 300 ms.
func (b *bench) stopWorker(string) error {
	time.Sleep(2 * time.Second)
	out, err := exec.CommandContext(b.ctx, "pgrep", "-f", b.meshbench+" worker").Output()
	if err != nil {
		return fmt.Errorf("finding the worker: %w", err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(out))[0])
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond)
	return syscall.Kill(pid, syscall.SIGCONT)
}

// queues: one server with Poisson arrivals has response times that theory
// knows. The tolerance is what simulated runs of the same length spread over.
func (b *bench) queues() error {
	const rate, seconds = 600, 10
	const service = time.Millisecond // utilisation 0.6
	for _, q := range []struct{ name, law string }{{"mm1", "exponential"}, {"md1", "constant"}} {
		var doc loadDocument
		if _, err := b.withOracle([]string{q.law, service.String()}, func(address string) (err error) {
			doc, err = b.load("http://"+address+"/", "--rate", strconv.Itoa(rate), "--connections", "256", "--duration", fmt.Sprintf("%ds", seconds), "--warmup", "1s")
			return err
		}); err != nil {
			return err
		}
		l, err := parseLaw([]string{q.law, service.String()})
		if err != nil {
			return err
		}
		var p50, p90 []float64
		random := rand.New(rand.NewPCG(3, 4))
		for range 400 {
			a, b := simulateQueue(random, l, rate, seconds)
			p50, p90 = append(p50, a), append(p90, b)
		}
		for _, f := range []struct {
			name      string
			seen      float64
			simulated []float64
		}{{"p50", doc.Response.P50, p50}, {"p90", doc.Response.P90, p90}} {
			slices.Sort(f.simulated)
			figure("accuracy_"+q.name+"_"+f.name, f.seen, fmt.Sprintf("us (theory %.0f, 99 %% of simulated runs %.0f to %.0f)",
				median(f.simulated), f.simulated[2], f.simulated[len(f.simulated)-3]))
		}
	}
	return nil
}

// simulateQueue returns p50 and p90 in microseconds of the response times in a
// queue with one server, by Lindley's recursion.
func simulateQueue(random *rand.Rand, l law, rate, seconds int) (p50, p90 float64) {
	var wait float64
	seen := make([]float64, 0, rate*seconds)
	for i := range rate * (seconds + 2) {
		service := float64(l.next(random).Nanoseconds()) / 1000
		if i >= 2*rate { // after it has filled
			seen = append(seen, wait+service)
		}
		wait = max(0, wait+service-random.ExpFloat64()*1e6/float64(rate))
	}
	slices.Sort(seen)
	return seen[len(seen)/2], seen[len(seen)*9/10]
}
