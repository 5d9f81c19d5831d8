package schema

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// digest tells equal content without keeping it.
type digest [sha256.Size]byte

// digest covers a file's content and, by theirs, all that it imports of the set. The
// content is what a reflection server would send.
func (l *linker) digest(f protoreflect.FileDescriptor) (digest, error) {
	content, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(protodesc.ToFileDescriptorProto(f))
	if err != nil {
		return digest{}, fmt.Errorf("encoding it: %w", plain(err))
	}
	h := sha256.New()
	h.Write(content)
	for i := range f.Imports().Len() {
		if imported := l.files[f.Imports().Get(i).Path()]; imported != nil {
			h.Write(imported.digest[:])
		}
	}
	return digest(h.Sum(nil)), nil
}

// digestSchema covers all that a schema is made of, whatever order it came in.
func digestSchema(s *Schema) digest {
	files := slices.SortedFunc(slices.Values(s.order), func(a, b file) int { return cmp.Compare(a.Path(), b.Path()) })
	h := sha256.New()
	for _, f := range files {
		h.Write(f.digest[:])
	}
	for _, service := range s.services {
		io.WriteString(h, service+"\n")
	}
	return digest(h.Sum(nil))
}
