package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// connectService is the file of the suite's service in its module. The Go package made
// of it is internal to the suite.
const connectService = "connectrpc/conformance/v1/service.proto"

// writeConnectSchema writes the suite's descriptors as a resource of the gateway.
func writeConnectSchema(ctx context.Context, dir string) (file string, err error) {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "connectrpc.com/conformance").Output()
	if err != nil {
		return "", fmt.Errorf("find the suite's .proto files: %w", err)
	}
	protos := filepath.Join(strings.TrimSpace(string(module)), "proto")
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{protos}})}
	files, err := compiler.Compile(ctx, connectService)
	if err != nil {
		return "", fmt.Errorf("compile %s: %w", connectService, err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for i := range files[0].Imports().Len() {
		// What they import in turn is google.protobuf, which the gateway has.
		set.File = append(set.File, protodesc.ToFileDescriptorProto(files[0].Imports().Get(i).FileDescriptor))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(files[0]))
	raw, err := proto.Marshal(set)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "schema.yaml")
	text := "apiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: connect}\nspec:\n  backendRefs: [{name: connect}]\n  descriptorSet: " + base64.StdEncoding.EncodeToString(raw) + "\n"
	return file, os.WriteFile(file, []byte(text), 0o600)
}
