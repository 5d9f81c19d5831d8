package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// manyRoutes is a text of n routes, each with two matches and two backends, and of
// as many backends.
func manyRoutes(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: route-%[1]d
  labels: {app: shop, team: t%[1]d}
spec:
  hostnames:
  - shop-%[1]d.example.com
  rules:
  - name: all
    matches:
    - method: {service: shop.v%[1]d.Cart}
    - method: {service: shop.v%[1]d.Cart, method: Checkout}
      headers:
      - {name: x-tenant, value: beta}
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: cart-%[1]d, weight: 90}
    - {group: sluice.dev, kind: Backend, name: cart-%[1]d, weight: 10}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart-%[1]d}
spec:
  endpoints: [{address: "10.0.0.11:50051"}, {address: "10.0.0.12:50051", weight: 2}]
`, i)
	}
	return []byte(b.String())
}

func BenchmarkParse10000Routes(b *testing.B) {
	text := manyRoutes(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		set, faults := Parse("f", text)
		if faults != nil || len(set.GRPCRoutes) != 10_000 {
			b.Fatal(faults)
		}
	}
}

func BenchmarkDecode10000Routes(b *testing.B) {
	set, faults := Parse("f", manyRoutes(10_000))
	if faults != nil {
		b.Fatal(faults)
	}
	var manifests [][]byte
	size := 0
	for _, r := range set.GRPCRoutes {
		manifest, err := json.Marshal(r)
		if err != nil {
			b.Fatal(err)
		}
		manifests = append(manifests, manifest)
		size += len(manifest)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		for _, manifest := range manifests {
			if _, err := Decode(GRPCRouteKind, manifest); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkMarshal10000Routes(b *testing.B) {
	set, faults := Parse("f", manyRoutes(10_000))
	if faults != nil {
		b.Fatal(faults)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range set.GRPCRoutes {
			if _, err := r.MarshalJSON(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
