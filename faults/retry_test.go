package faults

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestRetryStormIsBounded: with everything down, retries make no storm of it.
func TestRetryStormIsBounded(t *testing.T) {
	longOnly(t)
	for _, test := range []struct{ name, spec string }{
		{"without ejection", "outlierDetection: {disabled: true}"},
		{"at defaults", ""},
	} {
		t.Run(test.name, func(t *testing.T) { retryStorm(t, test.name, test.spec) })
	}
}

func retryStorm(t *testing.T, name, spec string) {
	rate := fullRate(t)
	s := begin(t, "all five answer UNAVAILABLE for 8 s, three retries allowed, %s", name)
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), spec, "retry: {attempts: 3, codes: [UNAVAILABLE]}"))
	r := load{rate: rate}.begin(t, g)
	wait(2 * time.Second)
	for _, b := range backends {
		b.behave(behaviour{Code: codes.Unavailable})
	}
	wait(8 * time.Second)
	for _, b := range backends {
		b.behave(behaviour{})
	}
	wait(time.Second)
	all := r.stop()
	attempts := 0
	for _, b := range backends {
		attempts += int(b.report().Begun)
	}
	bound := 1.2*float64(len(all.rpcs)) + 10*all.lasted.Seconds()
	s.holds(all)
	s.want(float64(attempts) <= bound, "1.2 × RPCs + 10 a second at most, "+thousands(int(bound)),
		"%s tries, %s failed", thousands(attempts), thousands(len(all.failed())))
}
