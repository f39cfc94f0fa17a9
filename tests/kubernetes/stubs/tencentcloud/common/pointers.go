// Package common has the pointers that requests to Tencent's cloud are made of.
package common

func StringPtr(value string) *string { return &value }

func BoolPtr(value bool) *bool { return &value }

func StringPtrs(values []string) []*string {
	pointers := make([]*string, len(values))
	for i := range values {
		pointers[i] = &values[i]
	}
	return pointers
}
