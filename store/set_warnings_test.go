package store

import (
	"slices"
	"strings"
	"testing"
)

func TestSetWarnsOfWhatIsNotInForce(t *testing.T) {
	const gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\n"
	const mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: b}}}"
	const mirrors = "timeouts: {backendRequest: 5s}, filters: [" + mirror + ", " + mirror + "]"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"nothing to say", splitRoute + "---\n" + policyText(", split: {whenNoEndpoints: SpillOver}") + "---\n" + backendText("a", ""), nil},
		{"a cluster's", gateway, []string{"in.yaml:1: Gateway edge is ignored: every route is served on the one port"}},
		{"an HTTPRoute", httpText("timeouts: {request: 0s, backendRequest: 0s}, filters: [{type: CORS, cors: {}}]"), nil},
		{"mirrors", httpText(mirrors), []string{"in.yaml:1: HTTPRoute default/r: not in force in this version: filter RequestMirror"}},
		{"timeouts", httpText("timeouts: {request: 5s, backendRequest: 5s}"), nil},
		{"a mirror of one backend", httpText("backendRefs: [{name: a, filters: [" + mirror + "]}]"), []string{"in.yaml:1: HTTPRoute default/r: not in force in this version: filter RequestMirror"}},
		{"a policy", policyText(", timeouts: {}, retry: {attempts: 1}, retryConstraint: {}"), nil},
	}
	for _, tt := range tests {
		if got := mustParse(t, tt.text).Warnings(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	got := mustParse(t, strings.Repeat(gateway+"---\n", 1000)).Warnings()
	if len(got) != maxWarnings+1 || got[maxWarnings] != "and 980 more" {
		t.Errorf("of a thousand: %d lines, the last %q", len(got), got[len(got)-1])
	}
	read, err := Decode(HTTPRouteKind, []byte(`{"metadata": {"name": "r"}, "spec": {"rules": [{"filters": [{"type": "RequestMirror", "requestMirror": {}}]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	set := Set{HTTPRoutes: []*HTTPRoute{read.(*HTTPRoute)}}
	if got, want := set.Warnings()[0], "HTTPRoute default/r: not in force in this version: filter RequestMirror"; got != want {
		t.Errorf("without a text: got %q, want %q", got, want)
	}
}
