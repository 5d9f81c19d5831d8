package gateway

import (
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/store"
)

// startTreated starts a gateway all of whose rules are treated as the spec of an RPCPolicy
// says: "retry: {attempts: 1}".
func startTreated(t testing.TB, cfg Config, spec string, resources ...string) *node {
	t.Helper()
	g := startGateway(t, cfg)
	if err := g.Apply(treatedSet(t, spec, resources...)); err != nil {
		t.Fatal(err)
	}
	return g
}

// treatedSet are the resources, with every rule treated so.
func treatedSet(t testing.TB, spec string, resources ...string) *store.Set {
	t.Helper()
	var b strings.Builder
	b.WriteString("apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}]\n")
	for line := range strings.Lines(spec) {
		b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
	}
	set := parse(t, append(resources, b.String())...)
	p := &set.RPCPolicies[0].Spec
	for _, route := range set.GRPCRoutes {
		for i := range route.Spec.Rules {
			treat := &route.Spec.Rules[i].Treatment
			treat.Timeouts, treat.Retry, treat.RetryConstraint = p.Timeouts, p.Retry, p.RetryConstraint
			treat.Hedging, treat.RateLimits = p.Hedging, p.RateLimits
		}
	}
	return set
}

// played is a request that a scripted backend has got.
type played struct {
	event
	p *peer
	n int // of this backend's requests, from 0
}

// play has a function answer each request of a scripted backend, until the test ends. It
// runs beside the test, one request of a connection at a time.
func (s *scripted) play(t testing.TB, answer func(q played)) {
	t.Helper()
	done := make(chan struct{})
	var work sync.WaitGroup
	t.Cleanup(func() {
		close(done)
		work.Wait()
	})
	var mu sync.Mutex
	n := 0
	work.Go(func() {
		for {
			select {
			case <-done:
				return
			case p := <-s.peers:
				work.Go(func() {
					for {
						e, ok := p.within(10*patience, func(e event) bool {
							return e.closed || e.typ == http2.FrameHeaders && e.get(":path") != ""
						})
						if !ok || e.closed {
							return
						}
						mu.Lock()
						q := played{e, p, n}
						n++
						mu.Unlock()
						answer(q)
					}
				})
			}
		}
	})
}

// says answers with a status and nothing before it.
func (q played) says(status, text string, pairs ...string) {
	q.p.headers(q.id, true, append([]string{":status", "200", "content-type", "application/grpc", "grpc-status", status, "grpc-message", text}, pairs...)...)
}

// paused waits a moment that a backend takes.
func paused(d time.Duration) { <-time.After(d) }
