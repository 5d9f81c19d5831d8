package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// scenario is one line of the report.
type scenario struct {
	t       *testing.T
	did     string
	saw     []string
	wanted  []string
	missed  bool
	invalid []string
}

// begin starts a scenario: did is what is done, in a few words.
func begin(t *testing.T, did string, args ...any) *scenario {
	t.Helper()
	s := &scenario{t: t, did: fmt.Sprintf(did, args...)}
	t.Cleanup(s.end)
	return s
}

// note is a figure that nothing hangs on.
func (s *scenario) note(format string, args ...any) {
	s.saw = append(s.saw, fmt.Sprintf(format, args...))
}

// want is a figure and what it has to be.
func (s *scenario) want(ok bool, wanted, format string, args ...any) {
	s.t.Helper()
	s.note(format, args...)
	s.wanted = append(s.wanted, wanted)
	if !ok {
		s.missed = true
		s.t.Errorf("missed: want %s, saw %s", wanted, fmt.Sprintf(format, args...))
	}
}

// holds looks at a load as a whole: that it was what was asked for, and that every
// answer was the caller's own.
func (s *scenario) holds(all *seen) {
	s.t.Helper()
	s.note("%s RPCs at %s/s", thousands(len(all.rpcs)), thousands(int(float64(len(all.rpcs))/all.lasted.Seconds())))
	if why := all.valid(); why != "" {
		s.invalid = append(s.invalid, why)
	}
	if all.rate == held && held < leastRate {
		s.invalid = append(s.invalid, fmt.Sprintf("this machine holds %s RPC/s now, want %s", thousands(held), thousands(leastRate)))
	}
	if n := all.wrong(); n > 0 {
		s.want(false, "each answer the caller's own", "%d wrong answers", n)
	}
}

// noneFailed holds a load to every RPC being answered well.
func (s *scenario) noneFailed(all *seen) {
	s.t.Helper()
	s.holds(all)
	failed := len(all.failed())
	s.want(failed == 0 && all.resent == 0, "0 failed", "%d failed%s, p99 %s", failed, resent(all), ms(all.quantile(0.99)))
	if failed > 0 {
		s.t.Logf("errors:\n%s", all.errors())
	}
}

// enough holds a load to the number of RPCs that the target asks for; a short run
// proves less.
func (s *scenario) enough(all *seen, least int) {
	if long && len(all.rpcs) < least {
		s.invalid = append(s.invalid, fmt.Sprintf("%s RPCs, want %s", thousands(len(all.rpcs)), thousands(least)))
	}
}

func resent(all *seen) string {
	if all.resent == 0 {
		return ""
	}
	return fmt.Sprintf(", %d refused and sent again by the client", all.resent)
}

// end prints the line, and fails the test when the run proves nothing.
func (s *scenario) end() {
	verdict := "PASS"
	switch {
	case len(s.invalid) > 0:
		verdict = "INVALID"
		s.t.Errorf("the load was not what was asked for: %s", strings.Join(s.invalid, "; "))
	case s.missed:
		verdict = "MISS"
	case s.t.Failed():
		verdict = "BROKEN" // the test itself, or the gateway, came to no end
	case s.t.Skipped():
		return
	}
	line := fmt.Sprintf("%-7s %s | %s", verdict, s.did, strings.Join(s.saw, ", "))
	if len(s.wanted) > 0 {
		line += " | want " + strings.Join(s.wanted, ", ")
	}
	if len(s.invalid) > 0 {
		line += " | " + strings.Join(s.invalid, "; ")
	}
	fmt.Fprintln(os.Stdout, line)
}

// held is the rate that findHeldRate found; tests run one after the other.
var held int

// fullRate is 5,000 RPC/s, or what this machine holds of it.
func fullRate(t *testing.T) int {
	t.Helper()
	if !long {
		return shortRate
	}
	if held == 0 {
		t.Run("held rate", func(t *testing.T) { held = findHeldRate(t) })
	}
	return held
}

// leastRate is below which a load of fullRate proves nothing.
const leastRate = 2000

// shortRate is what `go test` asks of a busy machine.
const shortRate = 500

// findHeldRate tries rates for two seconds each, and returns the first at which RPCs
// are neither left out nor late.
func findHeldRate(t *testing.T) int {
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	for _, rate := range []int{5000, 4000, 3000, 2000} {
		r := load{rate: rate}.begin(t, g)
		wait(2 * time.Second)
		all := r.stop()
		late := all.between(time.Second/2, 3*time.Second/2).quantile(0.99)
		t.Logf("%s RPC/s: p99 %s", thousands(rate), ms(late))
		if all.valid() == "" && late < 50*time.Millisecond {
			return rate
		}
	}
	return 1000
}
