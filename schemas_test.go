package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sluice runs one command line against a node's data directory, if there is one.
func sluice(t *testing.T, dataDir string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, notes bytes.Buffer
	if dataDir != "" {
		args = append(args, "--data-dir", dataDir)
	}
	err = run(t.Context(), args, &out, &notes)
	return out.String(), notes.String(), err
}

func mustSluice(t *testing.T, dataDir string, args ...string) string {
	t.Helper()
	stdout, stderr, err := sluice(t, dataDir, args...)
	if err != nil {
		t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

const watchedRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: watch}
spec:
  hostnames: [shop.example.com, "*.example.org"]
  rules:
  - matches: [{method: {service: shop.v1.Cart, method: Watch}}, {method: {service: till.v1.Till}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: shop}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: carts}
spec:
  rules:
  - matches: [{path: {value: /v1/carts}, method: GET}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: shop}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: mute}
spec:
  rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: mute}]}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: shop}
spec: {endpoints: [{address: %q}]}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: mute}
spec: {endpoints: []}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: legacy}
spec: {protocol: http1, endpoints: [{address: "127.0.0.1:1"}]}
`

const tillProto = `syntax = "proto3";
package till.v1;
import "google/api/annotations.proto";
service Till {
  // Pay takes money.
  rpc Pay(Payment) returns (Payment) { option (google.api.http) = {post: "/v1/tills/{till}:pay" body: "*"}; }
}
message Payment { string till = 1; }
`

// What backends tell of themselves, and what was pushed, is what a route is described
// by: by the command line, over the API, of the running gateway.
func TestServeDescribesRoutes(t *testing.T) {
	shop := startShop(t, "v1")
	dir := t.TempDir()
	resources := filepath.Join(dir, "routes.yaml")
	writeFile(t, resources, fmt.Sprintf(watchedRoutes, shop.Addr("v1")))
	data := filepath.Join(dir, "data")
	startServer(t, "--resources", resources, "--data-dir", data)

	if got := mustSluice(t, data, "methods", "--route", "watch", "-o", "name"); got != "shop.v1.Cart/Watch\n" {
		t.Errorf("methods of the route: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, "proto/till/v1"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "proto/till/v1/till.proto"), tillProto)
	pushed := mustSluice(t, data, "schema", "push", filepath.Join(dir, "proto"), "--name", "till")
	if !strings.Contains(pushed, "1 service, 1 method\n  new: till.v1.Till/Pay\n") {
		t.Errorf("push tells %q", pushed)
	}
	if got := mustSluice(t, data, "methods", "--route", "watch", "-o", "name"); got != "shop.v1.Cart/Watch\ntill.v1.Till/Pay\n" {
		t.Errorf("methods of the route after the push: %q", got)
	}
	if got := mustSluice(t, data, "methods", "--backend", "mute", "-o", "name"); got != "till.v1.Till/Pay\n" {
		t.Errorf("methods of the backend that does not tell: %q", got)
	}
	all := mustSluice(t, data, "methods")
	for _, want := range []string{"shop.v1.Cart/Get ", "till.v1.Till/Pay  ", "POST /v1/tills/{till}:pay", "mute, shop"} {
		if !strings.Contains(all, want) {
			t.Errorf("methods without %q:\n%s", want, all)
		}
	}

	// What speaks HTTP/1 has nothing to tell, and nobody asks it or complains.
	if _, notes, err := sluice(t, data, "methods"); err != nil || !strings.Contains(notes, "mute") || strings.Contains(notes, "legacy") {
		t.Errorf("error %v, notes %q: want one about the backend without an endpoint", err, notes)
	}
	if got := mustSluice(t, data, "methods", "--route", "carts", "-o", "name"); got != "shop.v1.Cart/Get\nshop.v1.Cart/Watch\n" {
		t.Errorf("methods of the HTTPRoute: %q", got) // the others are no GET below /v1/carts
	}

	var doc struct {
		Servers []struct{ URL string }
		Paths   map[string]struct {
			Post struct{ Description string }
		}
	}
	if err := json.Unmarshal([]byte(mustSluice(t, data, "openapi", "watch")), &doc); err != nil {
		t.Fatal(err)
	}
	paths := slices.Sorted(maps.Keys(doc.Paths))
	if want := []string{"/v1/carts/{id}/changes", "/v1/tills/{till}:pay"}; !slices.Equal(paths, want) {
		t.Errorf("paths %q, want %q", paths, want)
	}
	if doc.Paths[paths[1]].Post.Description != "Pay takes money." {
		t.Error("the comment of the source is lost")
	}
	if len(doc.Servers) != 1 || doc.Servers[0].URL != "https://shop.example.com" {
		t.Errorf("servers %v", doc.Servers)
	}
}

func TestServeSaysWhyARouteCannotBeDescribed(t *testing.T) {
	dir := t.TempDir()
	resources := filepath.Join(dir, "routes.yaml")
	writeFile(t, resources, fmt.Sprintf(watchedRoutes, "127.0.0.1:1"))
	data := filepath.Join(dir, "data")
	startServer(t, "--resources", resources, "--data-dir", data)
	_, _, err := sluice(t, data, "openapi", "mute")
	if err == nil || !strings.Contains(err.Error(), "no schema is known") || !strings.Contains(err.Error(), "no endpoint") || !strings.Contains(err.Error(), "sluice schema push") {
		t.Errorf("error %v, want one that says why and what to do", err)
	}
}

func TestSchemaPushTellsOfFaultsInSources(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	startServer(t, "--data-dir", data)
	source := filepath.Join(dir, "till.proto")
	writeFile(t, source, strings.Replace(tillProto, "(Payment) {", "(Nothing) {", 1))
	_, notes, err := sluice(t, data, "schema", "push", source, "-I", dir, "--name", "till")
	if want := source + ":6:29: "; err == nil || !strings.HasPrefix(notes, want) {
		t.Errorf("error %v, notes %q, want those to begin with %q", err, notes, want)
	}
}
