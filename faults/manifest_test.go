package faults

import "strings"

// manifest is a route that takes everything, to one Backend; spec is what the Backend's
// spec has beside its endpoints, each line with its indentation, and policy the spec of
// an RPCPolicy of the route, or nothing.
func manifest(endpoints, spec, policy string) string {
	text := `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: test}
spec:
  rules:
  - name: all
    backendRefs: [{group: sluice.dev, kind: Backend, name: test}]
---
` + backendManifest(endpoints, spec)
	if policy != "" {
		text += `---
apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: test}]
` + indent(policy)
	}
	return text
}

// backendManifest is the Backend alone.
func backendManifest(endpoints, spec string) string {
	text := `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: test}
spec:
`
	if endpoints != "" {
		text += "  endpoints: " + endpoints + "\n"
	}
	return text + indent(spec)
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}
