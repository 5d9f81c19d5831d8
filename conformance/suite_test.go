package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// judged runs a suite that returns what it is told to.
func judged(want int, got tally, err error, skips allowances) tally {
	s := suite{name: "x", want: want, run: func(context.Context, *rig, suite) (tally, error) { return got, err }}
	return s.judge(context.Background(), &rig{opts: rigOptions{skips: skips}, log: io.Discard})
}

func TestSuiteFailsARunThatIsWorthNothing(t *testing.T) {
	skips := allowances{{"x", "b", "reason"}}
	oneSkip := tally{passed: 1, skipped: []note{{"b", ""}}}
	tests := []struct {
		name  string
		want  int
		got   tally
		err   error
		skips allowances
		fails string // the id of the one failure; empty for none
	}{
		{name: "all passed", want: 2, got: tally{passed: 2}},
		{name: "did not run", want: 2, err: errors.New("no server"), fails: "run"},
		{name: "a case too few", want: 3, got: tally{passed: 2}, fails: "count"},
		{name: "a case too many", want: 1, got: tally{passed: 2}, fails: "count"},
		{name: "allowed skip", want: 2, got: oneSkip, skips: skips},
		{name: "skip that nobody allowed", want: 2, got: oneSkip, fails: "b"},
		{name: "allowance that nobody needed", want: 2, got: tally{passed: 2}, skips: skips, fails: "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judged(tt.want, tt.got, tt.err, tt.skips)
			var ids []string
			for _, f := range got.failed {
				ids = append(ids, f.id)
			}
			if joined := strings.Join(ids, " "); joined != tt.fails {
				t.Errorf("failed %q, want %q", joined, tt.fails)
			}
		})
	}
}

func TestTallyPrintsEveryFailureWithItsDetail(t *testing.T) {
	got := tally{passed: 3}
	got.fail("http2/1/2", "expected: x\ngot: y\n")
	var out strings.Builder
	got.print(&out, suite{name: "h2spec-seam", secure: true, want: 4}, 1500*time.Millisecond)
	want := "h2spec-seam    TLS       3 passed   1 failed   0 skipped  expected    4 cases     1.5s\n" +
		"    FAILED http2/1/2\n        expected: x\n        got: y\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
