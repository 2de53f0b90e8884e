package storetest

import (
	"crypto/rand"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

// hostile are texts that must come back as they went in.
var hostile = map[string]string{
	"empty":          "",
	"quotes":         `'; DROP TABLE runs; --"` + "`",
	"HTML":           `<script>alert(1)</script>&amp;<img src=x onerror=alert(1)>`,
	"10 kB":          strings.Repeat("0123456789", 1024),
	"right-to-left":  "\u202Eevil\u202C \u05E9\u05DC\u05D5\u05DD \u0627\u0644\u0639\u0631\u0628\u064A\u0629",
	"lines":          "a\r\nb\tc\x1b[31mred\x7f",
	"beyond 16 bits": "\U0001F578\U0001F4CA e\u0301 \uFEFF\uFFFD",
	"placeholders":   "$1 ? :x @y %s %d {{.}} \\ \\x00 \\u0000",
}

func testHostileTexts(t *testing.T, s store.Store) {
	ctx := t.Context()
	n := 0
	for name, word := range hostile {
		n++
		run := RunAt(n)
		run.Experiment.Name = word
		l := lease(time.Hour)
		l.Holder = "host/1/" + word
		must(t, s.Create(ctx, run, l))
		must(t, s.Renew(ctx, run.ID, l))
		trial := TrialOf(word, 1, 1)
		trial.Settings = []meshbench.Setting{{Name: word, Value: word}}
		must(t, s.AddTrial(ctx, run.ID, trial))
		run = Ended(run, meshbench.Finished)
		run.Headline = word
		must(t, s.Finish(ctx, run))

		if sum := summary(t, s, run.ID); sum.Name != word || sum.Headline != word {
			t.Errorf("%s: listed as %q, %q", name, sum.Name, sum.Headline)
		}
		got, err := s.Run(ctx, run.ID)
		must(t, err)
		if got.Experiment.Name != word || got.Headline != word {
			t.Errorf("%s: read as %q, %q", name, got.Experiment.Name, got.Headline)
		}
		trials, err := s.Trials(ctx, run.ID)
		must(t, err)
		if d := cmp.Diff(text(t, []meshbench.Trial{trial}), text(t, trials)); d != "" {
			t.Errorf("%s: trials (-in +out):\n%s", name, d)
		}
	}
	list, err := s.List(ctx, store.Page{})
	must(t, err)
	if len(list) != len(hostile) {
		t.Errorf("%d runs, want %d", len(list), len(hostile))
	}
}

func testRefusedTexts(t *testing.T, s store.Store) {
	ctx := t.Context()
	for name, word := range map[string]string{"NUL": "a\x00b", "not UTF-8": "a\xffb"} {
		run := RunAt(0)
		run.Experiment.Name = word
		wantError(t, s.Create(ctx, run, lease(time.Hour)), meshbench.Invalid, name)
	}
	run := create(t, s, 0)
	for name, word := range map[string]string{"NUL": "\x00", "not UTF-8": "\xc0\x80"} {
		wantError(t, s.AddTrial(ctx, run.ID, TrialOf(word, 1, 1)), meshbench.Invalid, name)
		ended := Ended(run, meshbench.Finished)
		ended.Headline = word
		wantError(t, s.Finish(ctx, ended), meshbench.Invalid, name)
		wantError(t, s.Renew(ctx, run.ID, store.Lease{Holder: word, Expires: start}), meshbench.Invalid, name)
	}
	if sum := summary(t, s, run.ID); sum.State != meshbench.Running || sum.Trials != 0 {
		t.Errorf("refused texts left %+v", sum)
	}
}

// testSizes stores what is as large as anything that was ever measured, and
// offers what is too large.
func testSizes(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	// A histogram with every counter used, uncompressible.
	big := TrialOf("none", 1, 1)
	big.Load.Response.Histogram = make([]byte, 4<<20)
	_, _ = rand.Read(big.Load.Response.Histogram) // it never fails
	must(t, s.AddTrial(ctx, run.ID, big))
	// An hour of batches.
	long := TrialOf("none", 2, 1)
	for len(long.Load.Batches) < 36000 {
		long.Load.Batches = append(long.Load.Batches, long.Load.Batches...)
	}
	must(t, s.AddTrial(ctx, run.ID, long))

	huge := TrialOf("none", 3, 1)
	huge.Load.Response.Histogram = make([]byte, store.MaxDocumentBytes)
	wantError(t, s.AddTrial(ctx, run.ID, huge), meshbench.Invalid, fmt.Sprint(store.MaxDocumentBytes))

	ended := Ended(run, meshbench.Partial)
	for i := range 10000 {
		ended.Failures = append(ended.Failures, meshbench.Failure{Sitting: i, Message: strings.Repeat("m", 100)})
	}
	must(t, s.Finish(ctx, ended))
	got, err := s.Run(ctx, run.ID)
	must(t, err)
	if text(t, got) != text(t, ended) {
		t.Error("a run with many failures came back otherwise")
	}
	trials, err := s.Trials(ctx, run.ID)
	must(t, err)
	if len(trials) != 2 || text(t, trials[0]) != text(t, big) || text(t, trials[1]) != text(t, long) {
		t.Errorf("large trials came back otherwise (%d of them)", len(trials))
	}
}

// testNoNumbers offers values that JSON does not have.
func testNoNumbers(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	for name, change := range map[string]func(*meshbench.Trial){
		"not a number": func(x *meshbench.Trial) { x.NeighbourCores = math.NaN() },
		"infinite":     func(x *meshbench.Trial) { x.Load.ThroughputRPS = math.Inf(1) },
		"in a latency": func(x *meshbench.Trial) { x.Load.Service.Max = meshbench.Microseconds(math.NaN()) },
	} {
		trial := TrialOf("none", 1, 1)
		change(&trial)
		if e := meshbench.AsError(s.AddTrial(ctx, run.ID, trial)); e == nil || e.Code != meshbench.Invalid {
			t.Errorf("%s: got %v, want an error of code invalid", name, e)
		}
	}
	if sum := summary(t, s, run.ID); sum.Trials != 0 {
		t.Errorf("%d of them were stored", sum.Trials)
	}
}

// parallel runs do n times at once and fails on every error.
func parallel(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := do(i); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func testConcurrentWriters(t *testing.T, s store.Store) {
	ctx := t.Context()
	const writers, trials = 8, 5
	parallel(t, writers, func(i int) error {
		run := RunAt(i)
		if err := s.Create(ctx, run, lease(time.Hour)); err != nil {
			return err
		}
		for k := range trials {
			if err := s.AddTrial(ctx, run.ID, TrialOf("none", k+1, uint64(i))); err != nil {
				return err
			}
			if err := s.Renew(ctx, run.ID, lease(2*time.Hour)); err != nil {
				return err
			}
			if _, err := s.List(ctx, store.Page{}); err != nil {
				return err
			}
		}
		return s.Finish(ctx, Ended(run, meshbench.Finished))
	})
	list, err := s.List(ctx, store.Page{})
	must(t, err)
	numbers := map[int64]bool{}
	for _, x := range list {
		numbers[x.Number] = true
		got, err := s.Trials(ctx, x.ID)
		must(t, err)
		if x.State != meshbench.Finished || x.Trials != trials || len(got) != trials {
			t.Errorf("run %d is %s with %d trials, %d read", x.Number, x.State, x.Trials, len(got))
		}
		for k := range got {
			if got[k].Sitting != k+1 {
				t.Errorf("run %d: trial %d is of sitting %d", x.Number, k, got[k].Sitting)
			}
		}
	}
	if len(list) != writers || len(numbers) != writers {
		t.Errorf("%d runs with %d numbers, want %d", len(list), len(numbers), writers)
	}
	events, err := s.Events(ctx, 0, store.MaxPage)
	must(t, err)
	for i, e := range events {
		if e.Sequence != int64(i+1) {
			t.Fatalf("event %d has sequence %d", i+1, e.Sequence)
		}
	}
	if len(events) != 2*writers {
		t.Errorf("%d events, want %d", len(events), 2*writers)
	}
}

func testConcurrentTrials(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	const writers, trials = 6, 5
	parallel(t, writers, func(i int) error {
		for k := range trials {
			if err := s.AddTrial(ctx, run.ID, TrialOf(fmt.Sprintf("cell %d", i), k+1, 1)); err != nil {
				return err
			}
		}
		return nil
	})
	got, err := s.Trials(ctx, run.ID)
	must(t, err)
	last := map[string]int{}
	for _, x := range got {
		if x.Sitting != last[x.Cell]+1 {
			t.Errorf("%s: sitting %d comes after %d", x.Cell, x.Sitting, last[x.Cell])
		}
		last[x.Cell] = x.Sitting
	}
	if len(got) != writers*trials || summary(t, s, run.ID).Trials != writers*trials {
		t.Errorf("%d trials read, %d listed, %d were added", len(got), summary(t, s, run.ID).Trials, writers*trials)
	}
}

// testConcurrentFinish lets many end one run: exactly one does.
func testConcurrentFinish(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	var mu sync.Mutex
	var won, interrupted int
	parallel(t, 6, func(i int) error {
		if i%2 == 0 {
			ids, err := s.InterruptExpired(ctx, start.Add(2*time.Hour), nil)
			mu.Lock()
			interrupted += len(ids)
			mu.Unlock()
			return err
		}
		ended := Ended(run, meshbench.Finished)
		ended.Headline = fmt.Sprint("writer ", i)
		err := s.Finish(ctx, ended)
		if e := meshbench.AsError(err); e != nil && e.Code == meshbench.Conflict {
			return nil
		}
		mu.Lock()
		won++
		mu.Unlock()
		return err
	})
	if won+interrupted != 1 {
		t.Errorf("%d finished it and %d interrupted it, want one in all", won, interrupted)
	}
	events, err := s.Events(ctx, 0, store.MaxPage)
	must(t, err)
	if len(events) != 2 {
		t.Errorf("events %+v, want its creation and one end", events)
	}
	if sum := summary(t, s, run.ID); sum.State == meshbench.Running || sum.ContentHash == "" {
		t.Errorf("it is %+v", sum)
	}
}
