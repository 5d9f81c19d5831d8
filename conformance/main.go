// Command conformance runs the test suites that other people wrote against the
// gateway, and says for each how many cases passed, failed and were skipped.
//
//	go run . [-only SUITE] [-sluice FILE] [-direct] [-soak N] [-v]
//
// It is run inside this folder, which is a module of its own so that what the
// suites need stays out of the product's go.sum. It exits 1 when a case fails,
// when a skip is not named in skips.txt, when skips.txt names a skip that did
// not happen, and when a suite ran another number of cases than it should have.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == shimArg {
		exitOn(runShim(ctx))
		return
	}
	exitOn(run(ctx, os.Args[1:], os.Stdout))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

// run runs the suites one after the other, since each is timed by its own
// clock and two at once would fail each other's deadlines.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("conformance", flag.ExitOnError)
	only := flags.String("only", "", "run the suites whose name begins with `SUITE`")
	sluice := flags.String("sluice", "", "the gateway's `FILE`; empty builds it from the folder above")
	direct := flags.Bool("direct", false, "leave the gateway out: what do both ends pass without it?")
	soak := flags.Int("soak", 10_000, "iterations of each soak case")
	verbose := flags.Bool("v", false, "show what the suites and the gateway say")
	if err := flags.Parse(args); err != nil {
		return err
	}

	allowed, err := readSkips("skips.txt")
	if err != nil {
		return err
	}
	rig, err := newRig(rigOptions{sluice: *sluice, direct: *direct, soak: *soak, verbose: *verbose, skips: allowed})
	if err != nil {
		return err
	}
	defer rig.close()
	chosen := suitesNamed(*only)
	if len(chosen) == 0 {
		return fmt.Errorf("no suite begins with %q", *only)
	}
	if err := rig.build(ctx, chosen); err != nil {
		return err
	}

	var sum tally
	for _, s := range chosen {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		got := s.judge(ctx, rig)
		got.print(stdout, s, time.Since(began))
		sum.add(got)
	}
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", sum.passed, len(sum.failed), len(sum.skipped))
	if len(sum.failed) > 0 {
		return fmt.Errorf("%d failed", len(sum.failed))
	}
	return nil
}
