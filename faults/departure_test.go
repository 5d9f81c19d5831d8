package faults

import (
	"fmt"
	"testing"
	"time"
)

// What goes in good order: by drain, and by restart.

func TestDrainIsNotNoticed(t *testing.T) {
	rate := fullRate(t)
	s := begin(t, "each of five endpoints is drained and put back, by the command line")
	backends := startBackends(t, 5, "b")
	for _, b := range backends {
		b.behave(behaviour{Delay: 20 * time.Millisecond})
	}
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: rate}.begin(t, g)
	wait(length(time.Second, 300*time.Millisecond))
	late := 0
	rounds := times(len(backends), 2)
	for _, b := range backends[:rounds] {
		g.sluice("", "backend", "drain", "test", b.address())
		drained := b.report()
		wait(length(time.Second, 300*time.Millisecond))
		late += int(b.report().Begun - drained.Begun)
		g.sluice("", "backend", "undrain", "test", b.address())
		r.awaitRPC(b.name(), r.now(), patience)
		wait(length(time.Second, 0))
	}
	r.reach(51_000)
	all := r.stop()
	s.noneFailed(all)
	s.enough(all, 50_000)
	// What had been sent when the drain was in force may still be on its way.
	s.want(late <= rounds*2, "no new RPC once the drain is in force", "%d RPCs begun on drained endpoints", late)
}

func TestRollingRestartIsNotNoticed(t *testing.T) {
	rate := fullRate(t)
	s := begin(t, "five backends restarted one after the other, by SIGTERM")
	backends := startBackends(t, 5, "b")
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: rate}.begin(t, g)
	wait(length(time.Second, 300*time.Millisecond))
	rounds := times(len(backends), 2)
	var slowest time.Duration
	for range times(2, 1) {
		for _, b := range backends[:rounds] {
			b.terminate()
			wait(length(300*time.Millisecond, 100*time.Millisecond))
			b.start()
			b.await()
			back := r.now()
			slowest = max(slowest, r.awaitRPC(b.name(), back, patience)-back)
			wait(length(700*time.Millisecond, 0))
		}
	}
	r.reach(51_000)
	all := r.stop()
	s.noneFailed(all)
	s.enough(all, 50_000)
	s.note("the slowest was in use %s after it was back", ms(slowest))
}

func TestConnectionsThatAgeAreNotNoticed(t *testing.T) {
	longOnly(t)
	rate := fullRate(t)
	s := begin(t, "backends end each connection by GOAWAY after a second")
	var backends []*backend
	for i := range 5 {
		backends = append(backends, startEndpoints(t, backendConfig{
			Servers: []serverConfig{{fmt.Sprint("b", i+1), newAddress()}}, Age: time.Second,
		}))
	}
	for _, b := range backends {
		b.await()
		b.behave(behaviour{Delay: 5 * time.Millisecond})
	}
	g := startGateway(t)
	g.apply(manifest(endpoints(backends...), "", ""))
	r := load{rate: rate}.begin(t, g)
	wait(12 * time.Second)
	r.reach(51_000)
	all := r.stop()
	s.noneFailed(all)
	s.enough(all, 50_000)
	opened := g.metric("sluice_conn_opened_total", `side="upstream"`)
	s.want(opened >= 25, "25 connections at least", "%.0f connections to backends", opened)
}
