package cli

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
)

const (
	goodText = `apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: cart-v3}
spec: {endpoints: []}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec: {rules: [{name: all}]}
`
	badText = "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: x}\nspec: {bad: 1}\n---\nbad: 2"
	oldText = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart, namespace: default, resourceVersion: "1777728900000.0@k3f9x2ab"}
spec: {hostnames: [shop.example.com]}
`
)

func TestCommandsDoWhatTheTranscriptsSay(t *testing.T) {
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"read", "explain", "change", "split", "history", "access", "usage", "backend", "cluster", "conflicts"} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			u.write("good.yaml", goodText)
			u.write("bad.yaml", badText)
			u.write("old.yaml", oldText)
			u.write("same.yaml", cartV1Manifest)
			u.write("folder/1.yaml", goodText)
			u.write("folder/2.json", cartV2Manifest)
			u.write("folder/.hidden.yaml", badText)
			u.write("folder/readme.txt", badText)
			u.write("gossip.key", "# of 2026\n"+base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))+"\n")
			u.write("two.key", strings.Repeat("a2tr\n", 2))
			u.write("short.key", "a2tr\n")
			u.write("password.txt", "tr0ub4dor\r\nnot this\n")
			transcript(t, name, u, folder)
		})
	}
}
