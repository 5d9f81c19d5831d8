package store

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// routeSet is a set of n routes and, for each hundred of them, a backend.
func routeSet(n int) *Set {
	set := &Set{}
	for i := range (n + 99) / 100 {
		b := &Backend{Meta: Meta{Namespace: "default", Name: fmt.Sprintf("backend-%d", i)}}
		b.Spec.SetDefaults()
		b.Spec.Endpoints = []Endpoint{{Address: "127.0.0.1:50051", Weight: 1}}
		set.Backends = append(set.Backends, b)
	}
	for i := range n {
		r := &GRPCRoute{Meta: Meta{Namespace: "default", Name: fmt.Sprintf("route-%d", i)}}
		r.Spec.Hostnames = []string{fmt.Sprintf("h%d.example.com", i)}
		r.Spec.Rules = []GRPCRouteRule{{
			Name:        "all",
			Matches:     []GRPCRouteMatch{{Method: &MethodMatch{Type: Exact, Service: "shop.v1.Cart"}}},
			BackendRefs: []BackendRef{{Group: OwnGroup, Kind: BackendKind, Name: fmt.Sprintf("backend-%d", i/100), Weight: 1}},
		}}
		set.GRPCRoutes = append(set.GRPCRoutes, r)
	}
	return set
}

// cpuTime is what this process has used of the processors. Unlike the time on the
// wall it says little about what else the machine does.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// With 10,000 routes the store keeps to its times. They are asked for in CPU time, in
// which the file system's own is not, and with room for a slow processor.
func TestStoreOfManyRoutes(t *testing.T) {
	const room = 4
	routes := 10_000
	if raceDetector {
		routes = 500
	}
	s := openStore(t, Options{})
	one := routeSet(1).GRPCRoutes[0]
	written := 0
	write := func() {
		written++
		r := *one
		r.Name = fmt.Sprintf("more-%d", written)
		mustWrite(t, s, Txn{Ops: []Op{{Apply: &r}}})
	}
	sync := func() {
		if _, err := s.SyncFiles(t.Context(), routeSet(routes), Author{}); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name string
		want time.Duration // of CPU time
		n    int           // times, of which the middle one counts
		do   func()
	}{
		{"10,000 routes of files", 2 * 700 * time.Millisecond, 1, sync},
		{"the same files again", 300 * time.Millisecond, 1, sync},
		{"write one route", 10 * time.Millisecond, 15, write},
		{"effective set after a write", 5 * time.Millisecond, 15, func() { s.Snapshot().Effective() }},
		{"split one route", 10 * time.Millisecond, 15, func() {
			written++
			edit := SplitEdit{Shares: []Share{{"backend-0", uint32(written)}}}
			mustWrite(t, s, Txn{Ops: []Op{splitOp(ID{GRPCRouteKind, "", "more-1"}, edit)}})
		}},
		{"delete what nobody needs", 20 * time.Millisecond, 5, func() {
			mustWrite(t, s, Txn{Ops: []Op{{ID: ID{GRPCRouteKind, "", fmt.Sprintf("more-%d", 2+written%15)}, Delete: true}}})
			written++
		}},
		{"open", 2 * 300 * time.Millisecond, 3, func() {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, s.opts)
		}},
		{"the first effective set", 5 * time.Millisecond, 1, func() { s.Snapshot().Effective() }},
	}
	for _, step := range steps {
		var took, cpu []time.Duration
		for range step.n {
			if step.name == "effective set after a write" {
				write()
			}
			runtime.GC()
			begin, used := time.Now(), cpuTime(t)
			step.do()
			took, cpu = append(took, time.Since(begin)), append(cpu, cpuTime(t)-used)
		}
		slices.Sort(took)
		slices.Sort(cpu)
		t.Logf("%-28s %9.2f ms, CPU %9.2f ms", step.name, ms(took[len(took)/2]), ms(cpu[len(cpu)/2]))
		if got := cpu[len(cpu)/2]; got > room*step.want && !raceDetector {
			t.Errorf("%s took %v of CPU time, want %v or less", step.name, got, step.want)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
