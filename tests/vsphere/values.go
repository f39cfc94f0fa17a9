package vm

import (
	"fmt"
	"os"
	"strings"
)

// fileValue is the option -f of govc v0.27.0 and newer, which Debian's govc lacks: an ExtraConfig value read from a
// file, KEY=PATH, so that a secret need not stand in the process list.
type fileValue struct{ config *extraConfig }

func (fileValue) String() string { return "" }

func (f fileValue) Set(text string) error {
	key, path, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q is not KEY=PATH", text)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return f.config.Set(key + "=" + string(content))
}
