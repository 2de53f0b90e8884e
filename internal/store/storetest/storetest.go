// Package storetest is the suite of tests that every store.Store passes, and
// the sample runs and trials that it uses.
package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/histogram"
	"github.com/meshbench/meshbench/internal/store"
)

// Run runs the suite. Open returns a new, empty store and arranges for it to
// be closed at the end of the test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s store.Store)
	}{
		{"Empty", testEmpty},
		{"Lifecycle", testLifecycle},
		{"AnyQuantile", testAnyQuantile},
		{"FinalStates", testFinalStates},
		{"CreateRefuses", testCreateRefuses},
		{"EndedIsNeverChanged", testEnded},
		{"FinishRefuses", testFinishRefuses},
		{"UnknownRun", testUnknownRun},
		{"ContentHash", testContentHash},
		{"Lease", testLease},
		{"InterruptExpired", testInterruptExpired},
		{"InterruptOfWhomIsGone", testInterruptOfWhomIsGone},
		{"Remove", testRemove},
		{"References", testReferences},
		{"AmbiguousPrefix", testAmbiguousPrefix},
		{"Paging", testPaging},
		{"Events", testEvents},
		{"HostileTexts", testHostileTexts},
		{"RefusedTexts", testRefusedTexts},
		{"Sizes", testSizes},
		{"NoNumbers", testNoNumbers},
		{"ConcurrentWriters", testConcurrentWriters},
		{"ConcurrentTrials", testConcurrentTrials},
		{"ConcurrentFinish", testConcurrentFinish},
		{"Cancelled", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, open(t))
		})
	}
}

// lease returns a lease of the suite that expires after a while.
func lease(after time.Duration) store.Lease {
	return store.Lease{Holder: Holder, Expires: start.Add(after)}
}

// must fails the test at once on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError fails unless err is an Error of the code, whose message holds all
// words.
func wantError(t testing.TB, err error, code meshbench.Code, words ...string) *meshbench.Error {
	t.Helper()
	var e *meshbench.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *meshbench.Error of code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("got code %s (%s), want %s", e.Code, e.Message, code)
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			t.Fatalf("message %q lacks %q", e.Message, w)
		}
	}
	return e
}

// create stores run n of the suite with a lease of an hour after the first's start.
func create(t testing.TB, s store.Store, n int) meshbench.Run {
	t.Helper()
	run := RunAt(n)
	must(t, s.Create(t.Context(), run, lease(time.Hour)))
	return run
}

// summary returns a run as the list has it.
func summary(t testing.TB, s store.Store, id string) store.Summary {
	t.Helper()
	list, err := s.List(t.Context(), store.Page{Limit: store.MaxPage})
	must(t, err)
	i := slices.IndexFunc(list, func(x store.Summary) bool { return x.ID == id })
	if i < 0 {
		t.Fatalf("run %s is not in the list", id)
	}
	return list[i]
}

func testEmpty(t *testing.T, s store.Store) {
	ctx := t.Context()
	list, err := s.List(ctx, store.Page{})
	must(t, err)
	if list == nil || len(list) != 0 {
		t.Errorf("an empty store lists %#v, want an empty list", list)
	}
	_, err = s.Run(ctx, "latest")
	if e := wantError(t, err, meshbench.NotFound); e.Hint == "" {
		t.Error("no hint says how to get a first run")
	}
	ids, err := s.InterruptExpired(ctx, start, nil)
	must(t, err)
	if len(ids) != 0 {
		t.Errorf("interrupted %v in an empty store", ids)
	}
	events, err := s.Events(ctx, 0, 10)
	must(t, err)
	if len(events) != 0 {
		t.Errorf("an empty store has events %v", events)
	}
}

func testLifecycle(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	got, err := s.Run(ctx, run.ID)
	must(t, err)
	if d := cmp.Diff(text(t, run), text(t, got)); d != "" {
		t.Errorf("a new run differs (-in +out):\n%s", d)
	}
	trials, err := s.Trials(ctx, run.ID)
	must(t, err)
	if trials == nil || len(trials) != 0 {
		t.Errorf("a new run has trials %#v, want an empty list", trials)
	}
	want := []meshbench.Trial{}
	for i := range 6 {
		// The order of adding is no order of the values.
		want = append(want, TrialOf([]string{"none", "envoy"}[i%2], 6-i, uint64(i)))
		must(t, s.AddTrial(ctx, run.ID, want[i]))
	}
	sum := summary(t, s, run.ID)
	if d := cmp.Diff(store.Summary{ID: run.ID, Number: 1, Name: "sample 0", State: meshbench.Running, StartedAt: run.StartedAt, Trials: 6}, sum); d != "" {
		t.Errorf("summary of a running run (-want +got):\n%s", d)
	}
	run = Ended(run, meshbench.Finished)
	run.Failures = []meshbench.Failure{{Cell: "envoy", Sitting: 2, Message: "died", Log: "last\x00line"}}
	run.Fingerprint.StealShare = 0.025
	must(t, s.Finish(ctx, run))
	got, err = s.Run(ctx, run.ID)
	must(t, err)
	if d := cmp.Diff(text(t, run), text(t, got)); d != "" {
		t.Errorf("a finished run differs (-in +out):\n%s", d)
	}
	trials, err = s.Trials(ctx, run.ID)
	must(t, err)
	if d := cmp.Diff(text(t, want), text(t, trials)); d != "" {
		t.Errorf("trials differ (-in +out):\n%s", d)
	}
	sum = summary(t, s, run.ID)
	if sum.State != meshbench.Finished || sum.Headline != run.Headline || sum.FinishedAt == nil ||
		!sum.FinishedAt.Equal(*run.FinishedAt) || sum.Trials != 6 || len(sum.ContentHash) != 64 {
		t.Errorf("summary of a finished run: %+v", sum)
	}
}

// testAnyQuantile asks what was read back for quantiles that nobody computed
// before it was stored.
func testAnyQuantile(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	in := TrialOf("envoy", 1, 7)
	must(t, s.AddTrial(ctx, run.ID, in))
	trials, err := s.Trials(ctx, run.ID)
	must(t, err)
	out := trials[0]
	for name, pair := range map[string][2]meshbench.Latency{
		"response":        {in.Load.Response, out.Load.Response},
		"connection_wait": {in.Load.ConnectionWait, out.Load.ConnectionWait},
		"service":         {in.Load.Service, out.Load.Service},
		"lateness":        {*in.Load.Lateness, *out.Load.Lateness},
		"connect":         {in.Load.Connect, out.Load.Connect},
		"error_response":  {in.Load.ErrorResponse, out.Load.ErrorResponse},
	} {
		before, err := histogram.Decode(pair[0].Histogram)
		must(t, err)
		after, err := histogram.Decode(pair[1].Histogram)
		must(t, err)
		if after.TotalCount() == 0 || !before.Equals(after) {
			t.Errorf("the histogram of %s is another one", name)
		}
		for _, p := range []float64{0, 0.37, 12.5, 66.6, 97.31, 99.95, 100} {
			if a, b := before.ValueAtPercentile(p), after.ValueAtPercentile(p); a != b {
				t.Errorf("%s at %v %%: %d ns, was %d ns", name, p, b, a)
			}
		}
	}
}

func testFinalStates(t *testing.T, s store.Store) {
	for i, state := range []meshbench.State{meshbench.Finished, meshbench.Interrupted, meshbench.Failed, meshbench.Partial} {
		run := create(t, s, i)
		run = Ended(run, state)
		if state == meshbench.Failed {
			run.Error = meshbench.Errorf(meshbench.Unavailable, "no envoy").WithHint("get one")
		}
		must(t, s.Finish(t.Context(), run))
		got, err := s.Run(t.Context(), run.ID)
		must(t, err)
		if d := cmp.Diff(text(t, run), text(t, got)); d != "" {
			t.Errorf("%s (-in +out):\n%s", state, d)
		}
		if sum := summary(t, s, run.ID); sum.State != state || sum.ContentHash == "" {
			t.Errorf("%s is listed as %+v", state, sum)
		}
	}
}

func testCreateRefuses(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	wantError(t, s.Create(ctx, run, lease(time.Hour)), meshbench.Conflict, run.ID)
	for name, change := range map[string]func(*meshbench.Run, *store.Lease){
		"no id":              func(r *meshbench.Run, _ *store.Lease) { r.ID = "" },
		"short id":           func(r *meshbench.Run, _ *store.Lease) { r.ID = r.ID[1:] },
		"lower case":         func(r *meshbench.Run, _ *store.Lease) { r.ID = strings.ToLower(r.ID) },
		"beyond 128 bits":    func(r *meshbench.Run, _ *store.Lease) { r.ID = "8" + r.ID[1:] },
		"SQL as id":          func(r *meshbench.Run, _ *store.Lease) { r.ID = "'; DROP TABLE runs; --0000" },
		"final state":        func(r *meshbench.Run, _ *store.Lease) { r.State = meshbench.Finished },
		"no start":           func(r *meshbench.Run, _ *store.Lease) { r.StartedAt = time.Time{} },
		"far future":         func(r *meshbench.Run, _ *store.Lease) { r.StartedAt = r.StartedAt.AddDate(500, 0, 0) },
		"no holder":          func(_ *meshbench.Run, l *store.Lease) { l.Holder = "" },
		"NUL in the holder":  func(_ *meshbench.Run, l *store.Lease) { l.Holder = "a\x00b" },
		"no expiry":          func(_ *meshbench.Run, l *store.Lease) { l.Expires = time.Time{} },
		"a rate of nothing":  func(r *meshbench.Run, _ *store.Lease) { r.Experiment.Load.Rate, r.Experiment.Axes = 0, nil },
		"an axis of no name": func(r *meshbench.Run, _ *store.Lease) { r.Experiment.Axes[0].Field = "no.field" },
	} {
		other, l := RunAt(1), lease(time.Hour)
		change(&other, &l)
		err := s.Create(ctx, other, l)
		if meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
			t.Errorf("%s: got %v, want an error of code invalid", name, err)
		}
	}
	list, err := s.List(ctx, store.Page{})
	must(t, err)
	if len(list) != 1 {
		t.Errorf("refused runs were stored: %+v", list)
	}
	// What was refused has used up nothing.
	create(t, s, 2)
	if sum := summary(t, s, idOf(t, s, "latest")); sum.Number != 2 {
		t.Errorf("the second run has number %d", sum.Number)
	}
}

// idOf returns the id that a reference means.
func idOf(t testing.TB, s store.Store, ref string) string {
	t.Helper()
	run, err := s.Run(t.Context(), ref)
	must(t, err)
	return run.ID
}

func testEnded(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	must(t, s.AddTrial(ctx, run.ID, TrialOf("none", 1, 1)))
	run = Ended(run, meshbench.Finished)
	must(t, s.Finish(ctx, run))
	before := summary(t, s, run.ID)

	wantError(t, s.AddTrial(ctx, run.ID, TrialOf("none", 2, 1)), meshbench.Conflict, run.ID, "finished")
	wantError(t, s.Renew(ctx, run.ID, lease(2*time.Hour)), meshbench.Conflict, run.ID)
	again := run
	again.Headline = "something else"
	wantError(t, s.Finish(ctx, again), meshbench.Conflict, run.ID)
	ids, err := s.InterruptExpired(ctx, start.Add(1000*time.Hour), nil)
	must(t, err)
	if len(ids) != 0 {
		t.Errorf("a finished run was interrupted: %v", ids)
	}
	if d := cmp.Diff(before, summary(t, s, run.ID)); d != "" {
		t.Errorf("it changed (-before +after):\n%s", d)
	}
	trials, err := s.Trials(ctx, run.ID)
	must(t, err)
	if len(trials) != 1 {
		t.Errorf("it has %d trials", len(trials))
	}
}

func testFinishRefuses(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := create(t, s, 0)
	for name, change := range map[string]func(*meshbench.Run){
		"running":            func(r *meshbench.Run) { r.State = meshbench.Running },
		"no state":           func(r *meshbench.Run) { r.State = "" },
		"unknown state":      func(r *meshbench.Run) { r.State = "done" },
		"no end":             func(r *meshbench.Run) { r.FinishedAt = nil },
		"an end at no time":  func(r *meshbench.Run) { r.FinishedAt = &time.Time{} },
		"another experiment": func(r *meshbench.Run) { r.Experiment.Sittings++ },
		"another start":      func(r *meshbench.Run) { r.StartedAt = r.StartedAt.Add(time.Second) },
	} {
		r := Ended(run, meshbench.Finished)
		change(&r)
		err := s.Finish(ctx, r)
		if meshbench.AsError(err) == nil || meshbench.AsError(err).Code != meshbench.Invalid {
			t.Errorf("%s: got %v, want an error of code invalid", name, err)
		}
	}
	if sum := summary(t, s, run.ID); sum.State != meshbench.Running {
		t.Errorf("it is %s after refusals", sum.State)
	}
	must(t, s.Finish(ctx, Ended(run, meshbench.Finished)))
}

func testUnknownRun(t *testing.T, s store.Store) {
	ctx := t.Context()
	create(t, s, 0)
	unknown := RunAt(1)
	_, err := s.Run(ctx, unknown.ID)
	wantError(t, err, meshbench.NotFound, unknown.ID)
	_, err = s.Trials(ctx, unknown.ID)
	wantError(t, err, meshbench.NotFound, unknown.ID)
	for _, err := range []error{
		s.Renew(ctx, unknown.ID, lease(time.Hour)),
		s.AddTrial(ctx, unknown.ID, TrialOf("none", 1, 1)),
		s.Finish(ctx, Ended(unknown, meshbench.Finished)),
		s.Remove(ctx, unknown.ID, start),
	} {
		if e := wantError(t, err, meshbench.NotFound, unknown.ID); e.Hint == "" {
			t.Errorf("%q has no hint", e.Message)
		}
	}
}

func testContentHash(t *testing.T, s store.Store) {
	ctx := t.Context()
	hash := func(n int, trials ...meshbench.Trial) string {
		t.Helper()
		run := create(t, s, n)
		run.Experiment.Name = RunAt(0).Experiment.Name
		for _, x := range trials {
			must(t, s.AddTrial(ctx, run.ID, x))
		}
		run, err := s.Run(ctx, run.ID)
		must(t, err)
		must(t, s.Finish(ctx, Ended(run, meshbench.Finished)))
		// What a reader computes from what it reads is what the store fixed.
		read, err := s.Trials(ctx, run.ID)
		must(t, err)
		computed, err := store.ContentHash(run.Experiment, read)
		must(t, err)
		got := summary(t, s, run.ID).ContentHash
		if got != computed {
			t.Errorf("run %d: the store says %s, its content has %s", n, got, computed)
		}
		return got
	}
	a, b := TrialOf("none", 1, 1), TrialOf("envoy", 1, 2)
	seen := map[string]int{}
	for n, trials := range [][]meshbench.Trial{{}, {a}, {a, b}, {b, a}, {a, b, b}} {
		h := hash(n, trials...)
		if before, twice := seen[h]; twice {
			t.Errorf("runs %d and %d have different trials and the same hash", before, n)
		}
		seen[h] = n
	}
}

func testEvents(t *testing.T, s store.Store) {
	ctx := t.Context()
	first, second := create(t, s, 0), create(t, s, 1)
	must(t, s.AddTrial(ctx, first.ID, TrialOf("none", 1, 1)))
	must(t, s.Finish(ctx, Ended(first, meshbench.Partial)))
	_, err := s.InterruptExpired(ctx, start.Add(2*time.Hour), nil)
	must(t, err)
	must(t, s.Remove(ctx, first.ID, start))
	wantError(t, s.Remove(ctx, first.ID, start), meshbench.NotFound) // which is no event

	events, err := s.Events(ctx, 0, store.MaxPage)
	must(t, err)
	want := []store.Event{
		{Sequence: 1, Kind: store.RunCreated, Run: first.ID},
		{Sequence: 2, Kind: store.RunCreated, Run: second.ID},
		{Sequence: 3, Kind: store.RunFinished, Run: first.ID},
		{Sequence: 4, Kind: store.RunInterrupted, Run: second.ID},
		{Sequence: 5, Kind: store.RunRemoved, Run: first.ID},
	}
	for i := range events {
		if events[i].At.Year() < 2020 {
			t.Errorf("event %d is of %s", i, events[i].At)
		}
		events[i].At = time.Time{}
	}
	if d := cmp.Diff(want, events); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	part, err := s.Events(ctx, 2, 2)
	must(t, err)
	if len(part) != 2 || part[0].Sequence != 3 || part[1].Sequence != 4 {
		t.Errorf("two events after the second: %+v", part)
	}
	for _, limit := range []int{-1, 0, store.MaxPage + 1} {
		_, err := s.Events(ctx, 0, limit)
		wantError(t, err, meshbench.Invalid)
	}
}

func testCancelled(t *testing.T, s store.Store) {
	run := create(t, s, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.AddTrial(ctx, run.ID, TrialOf("none", 1, 1))
	wantError(t, err, meshbench.Unavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not tell that it was cancelled", err)
	}
	_, err = s.List(ctx, store.Page{})
	wantError(t, err, meshbench.Unavailable)
	if sum := summary(t, s, run.ID); sum.Trials != 0 {
		t.Errorf("a cancelled trial was stored")
	}
}
