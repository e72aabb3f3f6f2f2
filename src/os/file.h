/* os/file.h - what a file is to the files of src/os that share it. */
#ifndef PGD_OS_FILE_H
#define PGD_OS_FILE_H

struct pgd_file {
    int descriptor;
    char name[]; /* for messages: the path, or the directory of a scratch file */
};

#endif
