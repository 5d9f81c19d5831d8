package schema

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

// names are the files of a set.
func names(set *descriptorpb.FileDescriptorSet) []string {
	var list []string
	for _, f := range set.GetFile() {
		list = append(list, f.GetName())
	}
	return list
}

func TestCompileSourcesFindsWhatIsImported(t *testing.T) {
	files := map[string]string{
		"proto/shop/v1/cart.proto": shop["shop/v1/cart.proto"],
		"proto/shop/v1/item.proto": shop["shop/v1/item.proto"],
		"other/plain.proto":        `syntax = "proto3"; message P { }`,
		"other/user.proto":         `syntax = "proto3"; import "plain.proto"; import "google/rpc/status.proto"; message U { P p = 1; google.rpc.Status s = 2; }`,
	}
	tests := []struct {
		name               string
		importPaths, files []string
		want               []string // of the files that are given
	}{
		{"an import path", []string{"proto"}, []string{"proto/shop/v1/cart.proto"}, []string{"shop/v1/item.proto", "shop/v1/cart.proto"}},
		{"two import paths", []string{"other", "./proto/"}, []string{"proto/shop/v1/item.proto", "other/user.proto"}, []string{"shop/v1/item.proto", "plain.proto", "user.proto"}},
		{"by the package", nil, []string{"proto/shop/v1/cart.proto"}, []string{"shop/v1/item.proto", "shop/v1/cart.proto"}},
		{"by the folder", nil, []string{"other/user.proto"}, []string{"plain.proto", "user.proto"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set, err := CompileSources(t.Context(), sourceFiles(files), test.importPaths, test.files)
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(names(set), isStandardPath)
			if !slices.Equal(got, test.want) {
				t.Errorf("files %v, want %v", got, test.want)
			}
			if len(got) == len(set.GetFile()) && test.name != "two import paths" {
				t.Error("the set is not complete: it lacks the standard files")
			}
			if s, err := Compile(set); err != nil || len(s.Faults()) > 0 {
				t.Errorf("error %v, faults %v", err, s.Faults())
			}
		})
	}
	// A file whose package is the whole path, from the folder that it begins in.
	set, err := CompileSources(t.Context(), sourceFiles(shop), nil, []string{"shop/v1/cart.proto"})
	if err != nil || !slices.Contains(names(set), "shop/v1/cart.proto") {
		t.Errorf("files %v, error %v", names(set), err)
	}
}

func TestCompileSourcesTellsWhereErrorsAre(t *testing.T) {
	tests := []struct {
		name        string
		text        string
		importPaths []string
		want        string
	}{
		{"syntax", "syntax = \"proto3\";\nmessage M {\n  string a = ;\n}\n", []string{"proto"}, "proto/a.proto:3:14: syntax error"},
		{"a type", "syntax = \"proto3\";\nmessage M {\n  None a = 1;\n}\n", []string{"proto"}, "proto/a.proto:3:3: "},
		{"an import", "syntax = \"proto3\";\nimport \"none.proto\";\n", []string{"proto"}, `proto/a.proto:2:8: "none.proto" is in none of the import paths ["proto"]`},
		{"another import path", "syntax = \"proto3\";\n", []string{"src"}, `compiling "proto/a.proto": it lies in none of the import paths ["src"]`},
		{"two errors", "syntax = \"proto3\";\nmessage M {\n  None a = 1;\n  None b = 2;\n}\n", []string{"proto"}, "proto/a.proto:4:3: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := CompileSources(t.Context(), sourceFiles(map[string]string{"proto/a.proto": test.text}), test.importPaths, []string{"proto/a.proto"})
			wantText(t, err, test.want)
		})
	}
	_, err := CompileSources(t.Context(), sourceFiles(nil), nil, []string{"none.proto"})
	wantText(t, err, "compiling sources: open none.proto: file does not exist")
	_, err = CompileSources(t.Context(), sourceFiles(nil), []string{"."}, []string{"none.proto"})
	wantText(t, err, "none.proto")
	_, err = CompileSources(t.Context(), sourceFiles(nil), nil, nil)
	wantText(t, err, "no files given")
}

func TestCompileSourcesTellsTwentyErrors(t *testing.T) {
	text := "syntax = \"proto3\";\nmessage M {\n" + strings.Repeat("  None a = 1;\n", 100) + "}\n"
	_, err := CompileSources(t.Context(), sourceFiles(map[string]string{"a.proto": text}), []string{"."}, []string{"a.proto"})
	if err == nil {
		t.Fatal("no error")
	}
	if n := strings.Count(err.Error(), "a.proto:"); n != maxSourceErrors || !errors.Is(err, errTooManyErrors) {
		t.Errorf("%d errors: %v", n, err)
	}
}

// endless is a source that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func (endless) Close() error { return nil }

func TestCompileSourcesReadsNoMoreThanItMay(t *testing.T) {
	_, err := CompileSources(t.Context(), func(string) (io.ReadCloser, error) { return endless{}, nil }, []string{"."}, []string{"a.proto"})
	wantText(t, err, `reading "a.proto": the sources have more than 16777216 bytes together`)
}

func TestCompileSourcesEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := CompileSources(ctx, sourceFiles(shop), []string{"."}, []string{"shop/v1/cart.proto"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
