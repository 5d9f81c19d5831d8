package store

import (
	"fmt"
	"testing"
)

// foreignRoutes are routes as another node sends them, edited for the n-th time.
func foreignRoutes(tb testing.TB, wall *testClock, routes, n int) []*Object {
	tb.Helper()
	objects := make([]*Object, routes)
	for i, r := range routeSet(routes).GRPCRoutes {
		r.Labels = map[string]string{"edit": fmt.Sprint(n)}
		o := foreignVersion(tb, r)
		o.Revision = Revision{wall.Now().UnixMilli() - 50_000 + int64(n), 0, "peer"}
		o.Vector = Vector{}.with(o.Revision)
		objects[i] = o
	}
	return objects
}

func decodeAllForeign(tb testing.TB, objects []*Object) []*Object {
	tb.Helper()
	decoded := make([]*Object, len(objects))
	for i, o := range objects {
		var err error
		if decoded[i], err = DecodeForeign(o.ID, mustEncode(tb, o)); err != nil {
			tb.Fatal(err)
		}
	}
	return decoded
}

// mergeAt is a store with so many routes of a peer, and the next edits of some of them.
func benchmarkMerge(b *testing.B, there, merged int) {
	wall := newTestClock()
	s, err := Open(Options{Dir: b.TempDir(), Now: wall.Now, AllowUnresolved: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Merge(b.Context(), foreignRoutes(b, wall, there, 0)); err != nil {
		b.Fatal(err)
	}
	s.Snapshot().Effective()
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		next := decodeAllForeign(b, foreignRoutes(b, wall, there, n)[:merged])
		b.StartTimer()
		result, err := s.Merge(b.Context(), next)
		if err != nil || len(result.Changes) != merged || len(result.Refused) != 0 {
			b.Fatalf("%d changes, %v, %v", len(result.Changes), result.Refused, err)
		}
		s.Snapshot().Effective()
	}
}

func BenchmarkMerge1000Of1000(b *testing.B) { benchmarkMerge(b, 1000, 1000) }

func BenchmarkMerge1Of10000(b *testing.B) { benchmarkMerge(b, 10_000, 1) }

func BenchmarkDecodeForeign(b *testing.B) {
	wall := newTestClock()
	for name, o := range map[string]*Object{
		"route":        foreignRoutes(b, wall, 1, 0)[0],
		"registration": foreignRegistration(b),
		"large schema": foreignVersion(b, parseText(b, schemaText("large", "", largeSet(b, 1))).Schemas[0]),
	} {
		row := mustEncode(b, o)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := DecodeForeign(o.ID, row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVersionSum(b *testing.B) {
	wall := newTestClock()
	o := foreignRoutes(b, wall, 1, 0)[0]
	for b.Loop() {
		o.copy().VersionSum()
	}
}
