package upstream

import (
	"testing"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// benched is a backend of two endpoints, in force.
func benched(t testing.TB) *Backend {
	p := NewPool(h2.NewEngine(h2.Limits{}), nil)
	p.Commit(p.Prepare(&store.Set{Backends: []*store.Backend{to("x", "a:1", "a:2")}}))()
	t.Cleanup(p.cancel)
	return p.Backend("default/x")
}

// An attempt that ends well costs one addition beside what Release costs.
func BenchmarkEndpointDone(b *testing.B) {
	for name, f := range map[string]func(*Endpoint){
		"release": func(e *Endpoint) { e.Release() },
		"done":    func(e *Endpoint) { e.Done(Result{Verdict: Success, Took: 700 * time.Microsecond}) },
	} {
		b.Run(name, func(b *testing.B) {
			e := benched(b).Endpoints[0]
			b.ReportAllocs()
			for b.Loop() {
				e.Acquire()
				f(e)
			}
		})
		b.Run(name+" in parallel", func(b *testing.B) {
			e := benched(b).Endpoints[0]
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					e.Acquire()
					f(e)
				}
			})
		})
	}
}

func TestEndpointDoneAllocatesNothing(t *testing.T) {
	b := benched(t)
	for _, v := range []Verdict{Success, Neutral, Failure} {
		if n := testing.AllocsPerRun(1000, func() {
			e, _ := b.Pick(balance.Request{})
			e.Done(Result{Verdict: v, Took: time.Millisecond})
			e, _ = b.Pick(balance.Request{})
			e.Done(Result{Verdict: Success, Took: time.Millisecond, FirstByte: time.Millisecond})
		}); n != 0 {
			t.Errorf("verdict %d: %v allocations", v, n)
		}
	}
}
