package store

import "testing"

func TestSetUnresolvedFollowsEveryReference(t *testing.T) {
	const text = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, namespace: shop}
spec:
  rules:
  - name: all
    backendRefs: [{name: here}, {name: gone}, {name: here, namespace: default}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  rules:
  - backendRefs:
    - name: here
    - name: gone
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone2}}}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: here}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: gone3, namespace: lab}}}
---
apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: policy, namespace: shop}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: GRPCRoute, name: rpc}
  - {group: gateway.networking.k8s.io, kind: GRPCRoute, name: rpc, sectionName: all}
  - {group: gateway.networking.k8s.io, kind: GRPCRoute, name: rpc, sectionName: gone}
  - {group: gateway.networking.k8s.io, kind: GRPCRoute, name: web}
---
apiVersion: sluice.dev/v1alpha1
kind: RPCPolicy
metadata: {name: elsewhere}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: rpc}]}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: here, namespace: shop}
spec: {endpoints: []}
`
	const want = `in.yaml:7:40: spec.rules[0].backendRefs[1].name: no Backend shop/gone is declared
in.yaml:7:54: spec.rules[0].backendRefs[2].name: no Backend default/here is declared
in.yaml:16:13: spec.rules[0].backendRefs[1].name: no Backend shop/gone is declared
in.yaml:17:74: spec.rules[0].backendRefs[1].filters[0].requestMirror.backendRef.name: no Backend shop/gone2 is declared
in.yaml:20:64: spec.rules[0].filters[1].requestMirror.backendRef.name: no Backend lab/gone3 is declared
in.yaml:29:63: spec.targetRefs[2].sectionName: GRPCRoute shop/rpc has no rule named gone
in.yaml:30:63: spec.targetRefs[3].name: no GRPCRoute shop/web is declared
in.yaml:35:79: spec.targetRefs[0].name: no GRPCRoute default/rpc is declared`
	if got := mustParse(t, text).Unresolved().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	folder(t, map[string]string{"in.yaml": text})
	if _, err := Load(LoadOptions{}, "in.yaml"); err == nil || err.Error() != want {
		t.Errorf("Load: got\n%v\nwant\n%s", err, want)
	}
	if _, err := Load(LoadOptions{AllowUnresolved: true}, "in.yaml"); err != nil {
		t.Errorf("Load with AllowUnresolved: %v", err)
	}
}
