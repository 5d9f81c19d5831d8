package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// suite is one run of one third-party suite over one transport.
type suite struct {
	name string
	// secure means TLS in front of the gateway and, where the suite's own
	// server speaks it, behind it too.
	secure bool
	// want is how many cases there are, skipped ones included.
	want int
	// needs names the programs of tools.go that have to be built.
	needs []string
	run   func(context.Context, *rig, suite) (tally, error)
}

// suites in the order in which they are run: the short ones first.
var suites = []suite{
	{name: "h2spec-seam", want: h2specCases, run: runH2specSeam},
	{name: "h2spec-seam", secure: true, want: h2specCases, run: runH2specSeam},
	{name: "h2spec-relay", want: h2specCases, run: runH2specRelay},
	{name: "h2spec-relay", secure: true, want: h2specCases, run: runH2specRelay},
	{name: "h2specd", want: h2specdCases, run: runH2specd},
	{name: "h2specd", secure: true, want: h2specdCases, run: runH2specd},
	{name: "connect-grpc", want: 374, needs: connectTools, run: runConnect},
	{name: "connect-grpc", secure: true, want: 196, needs: connectTools, run: runConnect},
	{name: "connect-web", want: 343, needs: connectTools, run: runConnect},
	{name: "connect-web", secure: true, want: 343, needs: connectTools, run: runConnect},
	{name: "connect-rpc", want: 808, needs: connectTools, run: runConnect},
	{name: "connect-rpc", secure: true, want: 808, needs: connectTools, run: runConnect},
	{name: "reference-grpc", want: 726, needs: connectTools, run: runConnect},
	{name: "reference-web", want: 1032, needs: connectTools, run: runConnect},
	{name: "reference-web", secure: true, want: 1032, needs: connectTools, run: runConnect},
	{name: "reference-rpc", want: 1628, needs: connectTools, run: runConnect},
	{name: "reference-rpc", secure: true, want: 1628, needs: connectTools, run: runConnect},
	{name: "browser", want: browserCases, run: runBrowser},
	{name: "browser", secure: true, want: browserCases, run: runBrowser},
	{name: "documents", want: documentCases, run: runDocuments},
	{name: "negative", want: len(negativeCases), needs: negativeTools, run: runNegative},
	{name: "interop", want: len(interopCases), needs: interopTools, run: runInterop},
	{name: "interop", secure: true, want: len(interopCases), needs: interopTools, run: runInterop},
}

func suitesNamed(prefix string) []suite {
	var chosen []suite
	for _, s := range suites {
		if strings.HasPrefix(s.name, prefix) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

func (s suite) transport() string {
	if s.secure {
		return "TLS"
	}
	return "clear"
}

// judge runs the suite and adds to its failures whatever makes the run itself
// worth nothing: another number of cases, a skip that nobody allowed, an
// allowed one that did not happen.
func (s suite) judge(ctx context.Context, r *rig) tally {
	got, err := s.run(ctx, r, s)
	if err != nil {
		got.fail("run", err.Error())
		return got
	}
	if n := got.cases(); n != s.want {
		got.fail("count", fmt.Sprintf("%d cases, expected %d", n, s.want))
	}
	for _, c := range got.skipped {
		if _, ok := r.opts.skips.match(s.name, c.id); !ok {
			got.fail(c.id, "skipped, and skips.txt does not name it")
		}
	}
	for _, k := range r.opts.skips.unused(s.name, got.skipped) {
		got.fail(k.pattern, "named in skips.txt, and not skipped")
	}
	return got
}

// note is one case that did not simply pass.
type note struct {
	id     string
	detail string
}

// tally is how the cases of a suite ended.
type tally struct {
	passed  int
	failed  []note
	skipped []note
}

func (t *tally) fail(id, detail string) { t.failed = append(t.failed, note{id, detail}) }
func (t *tally) skip(id, detail string) { t.skipped = append(t.skipped, note{id, detail}) }
func (t *tally) cases() int             { return t.passed + len(t.failed) + len(t.skipped) }

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed = append(t.failed, o.failed...)
	t.skipped = append(t.skipped, o.skipped...)
}

// print writes the suite's one line, and under it each failure with what was
// expected and what came.
func (t *tally) print(w io.Writer, s suite, took time.Duration) {
	fmt.Fprintf(w, "%-14s %-6s %4d passed %3d failed %3d skipped  expected %4d cases  %6.1fs\n",
		s.name, s.transport(), t.passed, len(t.failed), len(t.skipped), s.want, took.Seconds())
	for _, f := range t.failed {
		detail := strings.ReplaceAll(strings.TrimSpace(f.detail), "\n", "\n        ")
		fmt.Fprintf(w, "    FAILED %s\n        %s\n", f.id, detail)
	}
}
