package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParseTakesTheGatewayAPIsExamples has manifests that are built like those in
// the examples and guides of the Gateway API's own project: each as a whole file, with
// the Gateway or GatewayClass that stands beside the route. They must be accepted as
// they are, and lead nowhere but to Backends of the names in them.
func TestParseTakesTheGatewayAPIsExamples(t *testing.T) {
	tests := []struct {
		name, text string
		backends   []string
		ignored    int
	}{
		{"basic", `#$ Used in:
#$ - reference/api-types/grpcroute.md
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: example
spec:
  controllerName: acme.io/gateway-controller
  parametersRef:
    name: example
    group: acme.io
    kind: Parameters
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: my-gateway
spec:
  gatewayClassName: example
  listeners:  # The class has the defaults.
  - name: https
    protocol: HTTPS
    port: 50051
    tls:
      certificateRefs:
      - kind: Secret
        group: ""
        name: example-com-cert
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: app-1
spec:
  parentRefs:
  - name: my-gateway
  hostnames:
  - "example.com"
  rules:
  - matches:
    - method:
        service: com.example.User
        method: Login
    backendRefs:
    - name: service1
      port: 50051
  - matches:
    - headers:
      - type: Exact
        name: magic
        value: foo
      method:
        service: com.example.Things
        method: DoThing
    backendRefs:
    - name: service2
      port: 50051
`, []string{"service1", "service2"}, 2},
		{"filter", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: filter-1
spec:
  hostnames:
    - my.filter.com
  rules:
    - filters:
        - type: RequestHeaderModifier
          requestHeaderModifier:
            add:
              - name: my-header
                value: foo
      backendRefs:
        - name: filter-svc1
          weight: 1
          port: 50051
`, []string{"filter-svc1"}, 0},
		{"canary by header", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: bar-route
spec:
  parentRefs:
  - name: example-gateway
  hostnames:
  - "bar.example.com"
  rules:
  - matches:
    - headers:
      - type: Exact
        name: env
        value: canary
    backendRefs:
    - name: bar-svc-canary
      port: 50051
  - backendRefs:
    - name: bar-svc
      port: 50051
`, []string{"bar-svc-canary", "bar-svc"}, 0},
		{"reflection", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: foo-route
spec:
  parentRefs:
  - name: example-gateway
  hostnames:
  - "foo.example.com"
  rules:
  - matches:
    - method:
        service: com.example.User
        method: Login
    backendRefs:
    - name: foo-svc
      port: 50051
  - matches:
    - method:
        service: grpc.reflection.v1.ServerReflection
    backendRefs:
    - name: foo-svc
      port: 50051
`, []string{"foo-svc"}, 0},
		{"traffic split", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: foo-route
  labels:
    gateway: prod-web-gw
spec:
  hostnames:
  - foo.example.com
  rules:
  - backendRefs:
    - name: foo-v1
      port: 50051
      weight: 90
    - name: foo-v2
      port: 50051
      weight: 10
`, []string{"foo-v1", "foo-v2"}, 0},
		{"mesh", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: weighted
  namespace: default
spec:
  parentRefs:
  - group: ""
    kind: Service
    name: echo
    port: 7070
  rules:
  - name: named-rule
    backendRefs:
    - group: ""
      kind: Service
      name: echo-v1
      port: 7070
      weight: 70
    - name: echo-v3
      port: 7070
      weight: 0
`, []string{"echo-v1", "echo-v3"}, 0},
		{"HTTP: redirect", `apiVersion: v1
kind: Namespace
metadata:
  name: default
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: http-filter-1
spec:
  parentRefs:
    - name: my-filter-gateway
      sectionName: http
  hostnames:
    - my-filter.example.com
  rules:
    - filters:
        - type: RequestRedirect
          requestRedirect:
            scheme: https
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: prefix
spec:
  hostnames:
    - redirect.example
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /cayenne
      filters:
        - type: RequestRedirect
          requestRedirect:
            path:
              type: ReplacePrefixMatch
              replacePrefixMatch: /paprika
            statusCode: 302
`, nil, 1},
		{"HTTP: rewrite, mirror, CORS and timeouts", `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: all
spec:
  parentRefs:
  - name: same-namespace
  rules:
  - matches:
    - path:
        type: PathPrefix
        value: /cors
    backendRefs:
    - name: backend-v1
      port: 8080
    filters:
    - cors:
        allowOrigins:
        - "https://www.foo.com"
        - "https://*.bar.com"
        allowMethods:
        - GET
        - OPTIONS
        allowHeaders:
        - "*"
        exposeHeaders:
        - "x-header-3"
        allowCredentials: true
        maxAge: 3600
      type: CORS
  - name: write-only
    matches:
    - method: POST
    - method: PATCH
    backendRefs:
    - name: backend-v1
      port: 8080
    filters:
    - type: RequestMirror
      requestMirror:
        backendRef:
          name: foo-v2
          port: 8080
  - matches:
    - path:
        value: /cardamom
    timeouts:
      request: 10s
      backendRequest: 2s
    filters:
    - type: URLRewrite
      urlRewrite:
        hostname: elsewhere.example
        path:
          type: ReplaceFullPath
          replaceFullPath: /fennel
    backendRefs:
    - name: backend-v1
      weight: 1
      port: 80
`, []string{"backend-v1", "foo-v2"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			takes(t, tt.text, tt.backends, tt.ignored)
		})
	}
}

func takes(t *testing.T, text string, backends []string, ignored int) {
	t.Helper()
	for _, name := range backends {
		text += "---\n" + backendText(name, "")
	}
	set, faults := Parse("in.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	if faults := set.Unresolved(); faults != nil {
		t.Error(faults)
	}
	if len(set.GRPCRoutes)+len(set.HTTPRoutes) == 0 || len(set.Ignored) != ignored {
		t.Errorf("%d routes, ignored %v, want routes and %d ignored", len(set.GRPCRoutes)+len(set.HTTPRoutes), set.Ignored, ignored)
	}
}

// TestParseTakesTheGatewayAPIsOwnFiles tries the real ones: SLUICE_GATEWAY_API is
// the folder of a checkout of that project.
func TestParseTakesTheGatewayAPIsOwnFiles(t *testing.T) {
	root := os.Getenv("SLUICE_GATEWAY_API")
	if root == "" {
		t.Skip("SLUICE_GATEWAY_API is not set")
	}
	tried := 0
	err := filepath.WalkDir(filepath.Join(root, "examples"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte("kind: GRPCRoute\n")) && !bytes.Contains(data, []byte("kind: HTTPRoute\n")) {
			return err
		}
		tried++
		set, faults := Parse(path, data)
		// Of references to other kinds of backends there is nothing like it here.
		if foreign := bytes.Contains(data, []byte("ServiceImport")) || bytes.Contains(data, []byte("CustomBackend")); foreign {
			return nil
		}
		if faults != nil {
			t.Errorf("%s:\n%v", path, faults)
			return nil
		}
		for _, fault := range set.Unresolved() {
			if !strings.HasPrefix(fault.Message, "no Backend ") {
				t.Error(fault)
			}
		}
		return nil
	})
	if err != nil || tried == 0 {
		t.Errorf("%d files tried, error %v", tried, err)
	}
	t.Logf("%d files", tried)
}
