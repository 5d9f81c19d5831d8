package schema

import (
	"context"
	"io"
	"io/fs"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

// sourceFiles opens files that are given as text.
func sourceFiles(files map[string]string) func(path string) (io.ReadCloser, error) {
	return func(path string) (io.ReadCloser, error) {
		text, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}
}

// compiledSet compiles sources, all that are given, to a set.
func compiledSet(t testing.TB, files map[string]string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	var names []string
	for name := range files {
		names = append(names, name)
	}
	set, err := CompileSources(context.Background(), sourceFiles(files), []string{"."}, names)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// schemaOf compiles sources to a schema without faults.
func schemaOf(t testing.TB, files map[string]string) *Schema {
	t.Helper()
	s, err := Compile(compiledSet(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Faults()) > 0 {
		t.Fatal(s.Faults())
	}
	return s
}

// shop is a small service that imports what services import.
var shop = map[string]string{
	"shop/v1/cart.proto": `
syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "google/protobuf/timestamp.proto";
import "shop/v1/item.proto";

// Cart is a shopping cart.
service Cart {
  // Get returns it.
  rpc Get(GetRequest) returns (GetResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/v1/{name=carts/*}"
      response_body: "items"
      additional_bindings { post: "/v1/carts:get" body: "*" }
      additional_bindings { custom: { kind: "HEAD" path: "/v1/any" } }
    };
  }
  rpc Watch(GetRequest) returns (stream GetResponse);
}
message GetRequest { string name = 1; }
message GetResponse {
  repeated Item items = 1;
  google.protobuf.Timestamp at = 2;
}
`,
	"shop/v1/item.proto": `
syntax = "proto3";
package shop.v1;
message Item { string sku = 1; uint32 quantity = 2; }
`,
}
