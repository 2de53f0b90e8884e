package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/store"
)

func testLease(t *testing.T, s store.Store) {
	ctx := t.Context()
	run := RunAt(0)
	must(t, s.Create(ctx, run, lease(time.Minute)))
	must(t, s.Renew(ctx, run.ID, lease(2*time.Minute)))
	other := store.Lease{Holder: "somebody/2/else", Expires: start.Add(time.Hour)}
	wantError(t, s.Renew(ctx, run.ID, other), meshbench.Conflict, run.ID, Holder)
	wantError(t, s.Renew(ctx, run.ID, store.Lease{Expires: other.Expires}), meshbench.Invalid)
	wantError(t, s.Renew(ctx, run.ID, store.Lease{Holder: Holder}), meshbench.Invalid)

	// The lease that counts is the last one that was accepted.
	ids, err := s.InterruptExpired(ctx, start.Add(90*time.Second), nil)
	must(t, err)
	if len(ids) != 0 {
		t.Fatalf("a renewed lease expired: %v", ids)
	}
	// Nobody has noticed that it expired: its holder takes it up again.
	must(t, s.Renew(ctx, run.ID, lease(10*time.Minute)))
	ids, err = s.InterruptExpired(ctx, start.Add(10*time.Minute), nil)
	must(t, err)
	if len(ids) != 0 {
		t.Fatalf("a lease expired at its last moment, not after it: %v", ids)
	}
	ids, err = s.InterruptExpired(ctx, start.Add(10*time.Minute+1), nil)
	must(t, err)
	if !slices.Equal(ids, []string{run.ID}) {
		t.Fatalf("got %v, want %s interrupted", ids, run.ID)
	}
	wantError(t, s.Renew(ctx, run.ID, lease(time.Hour)), meshbench.Conflict, "interrupted")
}

func testInterruptExpired(t *testing.T, s store.Store) {
	ctx := t.Context()
	runs := make([]meshbench.Run, 5)
	for i := range runs {
		runs[i] = RunAt(i)
		must(t, s.Create(ctx, runs[i], lease(time.Duration(i+1)*time.Minute)))
		must(t, s.AddTrial(ctx, runs[i].ID, TrialOf("none", 1, uint64(i))))
	}
	must(t, s.Finish(ctx, Ended(runs[1], meshbench.Finished)))
	ids, err := s.InterruptExpired(ctx, start.Add(3*time.Minute+time.Second), nil)
	must(t, err)
	if want := []string{runs[0].ID, runs[2].ID}; !slices.Equal(ids, want) {
		t.Fatalf("interrupted %v, want %v", ids, want)
	}
	got, err := s.Run(ctx, runs[2].ID)
	must(t, err)
	if got.State != meshbench.Interrupted || got.FinishedAt == nil || got.FinishedAt.Before(got.StartedAt) {
		t.Errorf("the run says %s, finished %v", got.State, got.FinishedAt)
	}
	if len(got.Failures) != 1 || !strings.Contains(got.Failures[0].Message, Holder) {
		t.Errorf("the run does not say who left it: %+v", got.Failures)
	}
	trials, err := s.Trials(ctx, runs[2].ID)
	must(t, err)
	if len(trials) != 1 {
		t.Errorf("it has %d trials, had 1", len(trials))
	}
	hash, err := store.ContentHash(runs[2].Experiment, trials)
	must(t, err)
	sum := summary(t, s, runs[2].ID)
	if sum.State != meshbench.Interrupted || sum.FinishedAt == nil || !sum.FinishedAt.Equal(*got.FinishedAt) || sum.ContentHash != hash {
		t.Errorf("the list says %+v", sum)
	}
	wantError(t, s.AddTrial(ctx, runs[2].ID, TrialOf("none", 2, 1)), meshbench.Conflict, "interrupted")
	wantError(t, s.Finish(ctx, Ended(runs[2], meshbench.Finished)), meshbench.Conflict, "interrupted")
	// The others go on.
	must(t, s.AddTrial(ctx, runs[4].ID, TrialOf("none", 2, 1)))
	ids, err = s.InterruptExpired(ctx, start.Add(3*time.Minute+time.Second), nil)
	must(t, err)
	if len(ids) != 0 {
		t.Errorf("interrupted again: %v", ids)
	}
}

func testInterruptOfWhomIsGone(t *testing.T, s store.Store) {
	ctx := t.Context()
	lives, gone := RunAt(0), RunAt(1)
	must(t, s.Create(ctx, lives, lease(time.Hour)))
	killed := lease(time.Hour)
	killed.Holder = "host/killed"
	must(t, s.Create(ctx, gone, killed))
	ids, err := s.InterruptExpired(ctx, start, func(holder string) bool { return holder == killed.Holder })
	must(t, err)
	if !slices.Equal(ids, []string{gone.ID}) {
		t.Fatalf("interrupted %v, want %s", ids, gone.ID)
	}
	got, err := s.Run(ctx, gone.ID)
	must(t, err)
	if got.State != meshbench.Interrupted || len(got.Failures) != 1 || !strings.Contains(got.Failures[0].Message, killed.Holder) {
		t.Errorf("the run says %s, %+v", got.State, got.Failures)
	}
	must(t, s.AddTrial(ctx, lives.ID, TrialOf("none", 1, 1)))
}

func testRemove(t *testing.T, s store.Store) {
	ctx := t.Context()
	running, ended, kept := create(t, s, 0), create(t, s, 1), create(t, s, 2)
	for _, r := range []meshbench.Run{running, ended, kept} {
		must(t, s.AddTrial(ctx, r.ID, TrialOf("none", 1, 1)))
	}
	must(t, s.Finish(ctx, Ended(ended, meshbench.Finished)))
	must(t, s.Remove(ctx, ended.ID, start))
	e := wantError(t, s.Remove(ctx, running.ID, start.Add(time.Hour)), meshbench.Conflict, running.ID, Holder)
	if e.Hint == "" {
		t.Error("no hint says how to remove a running run")
	}
	// Its lease has expired: nobody needs it.
	must(t, s.Remove(ctx, running.ID, start.Add(time.Hour+time.Nanosecond)))
	for _, gone := range []string{running.ID, ended.ID} {
		_, err := s.Run(ctx, gone)
		wantError(t, err, meshbench.NotFound, gone)
		_, err = s.Trials(ctx, gone)
		wantError(t, err, meshbench.NotFound, gone)
		wantError(t, s.Remove(ctx, gone, start), meshbench.NotFound, gone)
	}
	wantError(t, s.AddTrial(ctx, running.ID, TrialOf("none", 2, 1)), meshbench.NotFound)
	trials, err := s.Trials(ctx, kept.ID)
	must(t, err)
	if len(trials) != 1 {
		t.Errorf("the run beside them has %d trials, had 1", len(trials))
	}
	// A number is never used again, an id may be (an import brings it back).
	must(t, s.Create(ctx, ended, lease(time.Hour)))
	if sum := summary(t, s, ended.ID); sum.Number != 4 || sum.Trials != 0 {
		t.Errorf("created anew it is %+v", sum)
	}
}

func testReferences(t *testing.T, s store.Store) {
	ctx := t.Context()
	// Two ids that part at the sixth character, and one that is all digits in
	// its first five.
	ids := []string{"01AB3DEF0000000000000000AA", "01AB3XYZ0000000000000000BB", "76543ABC0000000000000000CC"}
	for _, id := range ids {
		run := RunAt(0)
		run.ID = id
		must(t, s.Create(ctx, run, lease(time.Hour)))
	}
	for ref, want := range map[string]string{
		ids[0]:                  ids[0],
		strings.ToLower(ids[1]): ids[1],
		"01AB3D":                ids[0],
		"01ab3x":                ids[1],
		" 01AB3D\n":             ids[0],
		"1":                     ids[0],
		"#2":                    ids[1],
		"3":                     ids[2],
		"7654":                  ids[2], // no run has that number, one begins so
		"76543":                 ids[2],
		"latest":                ids[2],
		"Latest":                ids[2],
	} {
		run, err := s.Run(ctx, ref)
		if err != nil {
			t.Errorf("%q: %v", ref, err)
		} else if run.ID != want {
			t.Errorf("%q is %s, want %s", ref, run.ID, want)
		}
	}
	for ref, code := range map[string]meshbench.Code{
		"":                           meshbench.Invalid,
		" ":                          meshbench.Invalid,
		"01A":                        meshbench.Invalid, // too short
		"0":                          meshbench.Invalid,
		"-1":                         meshbench.Invalid,
		"#":                          meshbench.Invalid,
		"#01AB3D":                    meshbench.Invalid,
		"01AB%":                      meshbench.Invalid, // no wildcards
		"01AB_":                      meshbench.Invalid,
		"ILOU":                       meshbench.Invalid, // letters that no id has
		ids[0] + "A":                 meshbench.Invalid,
		"x' OR '1'='1":               meshbench.Invalid,
		"01AB\x00":                   meshbench.Invalid,
		strings.Repeat("9", 40):      meshbench.Invalid,
		strings.Repeat("0", 10000):   meshbench.Invalid,
		"4":                          meshbench.NotFound,
		"#7654":                      meshbench.NotFound, // marked as a number
		"9223372036854775807":        meshbench.NotFound,
		"01AB4":                      meshbench.NotFound,
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ": meshbench.NotFound,
	} {
		_, err := s.Run(ctx, ref)
		e := meshbench.AsError(err)
		if e == nil || e.Code != code || e.Hint == "" {
			t.Errorf("%.40q: got %v, want an error of code %s with a hint", ref, err, code)
		}
	}
}

func testAmbiguousPrefix(t *testing.T, s store.Store) {
	ctx := t.Context()
	var ids []string
	for i := range 8 {
		run := RunAt(0)
		run.ID = fmt.Sprintf("01AB3%c%020d", 'A'+i, i)
		ids = append(ids, run.ID)
		must(t, s.Create(ctx, run, lease(time.Hour)))
	}
	_, err := s.Run(ctx, "01ab3")
	// The newest candidates are shown, and that there are others.
	e := wantError(t, err, meshbench.Invalid, append(ids[3:], "more")...)
	if strings.Contains(e.Message, ids[2]) || e.Hint == "" {
		t.Errorf("message %q, hint %q", e.Message, e.Hint)
	}
	must(t, s.Remove(ctx, ids[7], start.Add(2*time.Hour)))
	_, err = s.Run(ctx, ids[7])
	wantError(t, err, meshbench.NotFound)
	run, err := s.Run(ctx, ids[6][:6])
	must(t, err)
	if run.ID != ids[6] {
		t.Errorf("got %s, want %s", run.ID, ids[6])
	}
}

// testPaging walks through more runs than a page can hold.
func testPaging(t *testing.T, s store.Store) {
	ctx := t.Context()
	const n = 1050
	// They are not created in the order of their ids: imported runs are older.
	var want []string
	for i := range n {
		run := RunAt(i * 7919 % n)
		want = append(want, run.ID)
		must(t, s.Create(ctx, run, lease(time.Hour)))
	}
	slices.Sort(want)
	slices.Reverse(want)
	for _, limit := range []int{0, 1, 7, 333, store.MaxPage} {
		var got []string
		page := store.Page{Limit: limit}
		for {
			list, err := s.List(ctx, page)
			must(t, err)
			full := limit
			if limit == 0 {
				full = store.DefaultPage
			}
			if len(list) > full {
				t.Fatalf("a page of %d has %d runs", full, len(list))
			}
			for _, x := range list {
				got = append(got, x.ID)
			}
			if len(list) < full || limit == 1 && len(got) == 5 {
				break
			}
			page.Before = list[len(list)-1].ID
		}
		expect := want
		if limit == 1 {
			expect = want[:5]
		}
		if d := cmp.Diff(expect, got); d != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, d)
		}
	}
	latest, err := s.Run(ctx, "latest")
	must(t, err)
	if latest.ID != want[0] {
		t.Errorf("latest is %s, the first of the list %s", latest.ID, want[0])
	}
	// The run that a page ended with may be removed before the next is asked for.
	must(t, s.Remove(ctx, want[9], start.Add(2*time.Hour)))
	list, err := s.List(ctx, store.Page{Limit: 1, Before: want[9]})
	must(t, err)
	if len(list) != 1 || list[0].ID != want[10] {
		t.Errorf("after a removed run: %+v, want %s", list, want[10])
	}
	for _, page := range []store.Page{{Limit: -1}, {Limit: store.MaxPage + 1}, {Before: "01AB"}, {Before: "' OR 1=1 --"}} {
		_, err := s.List(ctx, page)
		wantError(t, err, meshbench.Invalid)
	}
}
